import { type Family, familyOf, roleOf } from '@polygraft/architectures'
import { type DiffLine, type DiffReport, type DiffRow, diffReport } from '@polygraft/delta'
import { createPairMeter } from '@polygraft/engine'
import {
  byteSize,
  type Checkpoint,
  isFloat,
  ModelError,
  mergeSources,
  numel,
  type Problem,
  throwIfAny,
} from '@polygraft/tensor'
import { type Command, Option } from 'commander'
import { parseWhole } from '../arguments.js'
import { formatCount, formatNumber, formatShare, formatTable } from '../format.js'
import { CHECKPOINT_HELP, openCheckpoints } from '../open.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

/** `polygraft diff <base> <post>` */
export function addDiff(program: Command): void {
  const command = program
    .command('diff')
    .description(
      'Measure the delta post - base: norm, relative norm, cosine, share changed, largest change; per tensor and group.',
    )
    .argument('<base>', CHECKPOINT_HELP)
    .argument('<post>', CHECKPOINT_HELP)
    .addOption(
      new Option('--top <n>', 'show only the n tensors that changed most; 0 shows all')
        .argParser(parseWhole(0))
        .default(20),
    )
  addExample(
    addJson(command),
    'polygraft diff ./base ./instruct --top 10',
    'polygraft diff ./base ./instruct --json',
  )
  command.action(run)
}

async function run(
  baseLocation: string,
  postLocation: string,
  args: { top: number; json?: boolean },
): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const [base, post] = await openCheckpoints(baseLocation, postLocation)
  const { names, onlyInBase, onlyInPost, notMeasured } = pairUp(base, post)
  const report = diffReport(await measure(terminal, base, post, names))
  const result = { base: baseLocation, post: postLocation, ...report, onlyInBase, onlyInPost, notMeasured }
  terminal.result(result, () => describe(report, args.top, { onlyInBase, onlyInPost, notMeasured }))
}

interface Pairs {
  readonly names: readonly string[]
  readonly onlyInBase: readonly string[]
  readonly onlyInPost: readonly string[]
  /** Integer and quantised tensors. */
  readonly notMeasured: readonly string[]
}

function pairUp(base: Checkpoint, post: Checkpoint): Pairs {
  const shared = [...base.tensors.keys()].filter((name) => post.tensors.has(name))
  throwIfAny(shared.flatMap((name) => shapeProblem(name, base, post)))
  if (shared.length === 0)
    throw new ModelError({
      code: 'nothing-shared',
      message: 'The two checkpoints have no tensor in common',
      expected: [...base.tensors.keys()].slice(0, 3).join(', '),
      received: [...post.tensors.keys()].slice(0, 3).join(', '),
      next: 'Compare checkpoints of one family, for instance a base with its instruct version.',
    })
  const measurable = (name: string) =>
    isFloat(base.tensors.get(name)!.dtype) && isFloat(post.tensors.get(name)!.dtype)
  return {
    names: shared.filter(measurable),
    onlyInBase: [...base.tensors.keys()].filter((name) => !post.tensors.has(name)),
    onlyInPost: [...post.tensors.keys()].filter((name) => !base.tensors.has(name)),
    notMeasured: shared.filter((name) => !measurable(name)),
  }
}

function shapeProblem(name: string, base: Checkpoint, post: Checkpoint): Problem[] {
  const [expected, received] = [base, post].map((c) => `[${c.tensors.get(name)!.shape.join(', ')}]`)
  if (expected === received) return []
  return [
    {
      code: 'shape-mismatch',
      message: 'Shapes differ between base and post',
      tensor: name,
      expected: expected!,
      received: received!,
    },
  ]
}

async function measure(
  terminal: Terminal,
  base: Checkpoint,
  post: Checkpoint,
  names: readonly string[],
): Promise<DiffRow[]> {
  const meter = createPairMeter(mergeSources(base, post))
  const family = familyOrNone(base)
  const sizeOf = (name: string) =>
    byteSize(base.tensors.get(name)!.dtype, numel(base.tensors.get(name)!.shape))
  const total = names.reduce((sum, name) => sum + sizeOf(name), 0)
  const progress = terminal.progress('diff')
  const rows: DiffRow[] = []
  let done = 0
  for (const name of names) {
    const moments = await meter.measure(name, base.tensors.get(name)!, post.tensors.get(name)!)
    const role = family ? roleOf(family, name) : { group: 'other' as const }
    rows.push({
      name,
      group: role.group,
      ...(role.layer === undefined ? {} : { layer: role.layer }),
      moments,
    })
    done += sizeOf(name)
    progress.update(done, total)
  }
  progress.done()
  return rows
}

function familyOrNone(checkpoint: Checkpoint): Family | undefined {
  try {
    return familyOf(checkpoint.config)
  } catch (error) {
    if (error instanceof ModelError) return undefined
    throw error
  }
}

function describe(report: DiffReport, top: number, rest: Omit<Pairs, 'names'>): string {
  const head = ['norm', 'relative', 'cosine', 'changed', 'largest']
  const cells = (line: DiffLine) => [
    formatNumber(line.norm),
    formatNumber(line.relativeNorm),
    Number.isNaN(line.cosine) ? '' : line.cosine.toFixed(6),
    formatShare(line.changedShare),
    formatNumber(line.maxAbs),
  ]
  const shown = top === 0 ? report.tensors : report.tensors.slice(0, top)
  const hidden = report.tensors.length - shown.length
  const groups = [...Object.values(report.groups), report.total]
  const lines = [
    formatTable([['tensor', ...head], ...shown.map((line) => [line.name, ...cells(line)])]),
    ...(hidden > 0 ? [`... ${hidden} more tensors (--top 0 shows all)`] : []),
    '',
    formatTable([
      ['group', ...head, 'elements'],
      ...groups.map((line) => [line.name, ...cells(line), formatCount(line.count)]),
    ]),
  ]
  if (report.total.nonFinite > 0)
    lines.push(`${formatCount(report.total.nonFinite)} elements are infinite or NaN; they enter no sum`)
  const labels = {
    onlyInBase: 'only in base',
    onlyInPost: 'only in post',
    notMeasured: 'not measured (no floats)',
  }
  for (const [key, label] of Object.entries(labels)) {
    const names = rest[key as keyof typeof labels]
    if (names.length > 0) lines.push(`${label}: ${names.join(', ')}`)
  }
  return lines.join('\n')
}
