import { type Family, familyOf, roleOf } from '@polygraft/architectures'
import { type DiffReport, type DiffRow, diffReport } from '@polygraft/delta'
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
import { CHECKPOINT_HELP, openCheckpoint } from '../open.js'
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
  const base = await openCheckpoint(baseLocation)
  const post = await openCheckpoint(postLocation)
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
    progress.update((done += sizeOf(name)), total)
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
  const cells = (row: DiffReport['total']) => [
    formatNumber(row.norm),
    formatNumber(row.relativeNorm),
    row.cosine.toFixed(6),
    formatShare(row.changedShare),
    formatNumber(row.maxAbs),
  ]
  const shown = top === 0 ? report.tensors : report.tensors.slice(0, top)
  const lines = [
    formatTable([['tensor', ...head], ...shown.map((row) => [row.name, ...cells(row)])]),
    ...(shown.length < report.tensors.length
      ? [`... ${report.tensors.length - shown.length} more tensors (--top 0 shows all)`]
      : []),
    '',
    formatTable([
      ['group', ...head, 'elements'],
      ...Object.entries(report.groups).map(([group, row]) => [group, ...cells(row), formatCount(row.count)]),
      ['total', ...cells(report.total), formatCount(report.total.count)],
    ]),
  ]
  for (const [label, names] of Object.entries(rest))
    if (names.length > 0) lines.push(`${label}: ${names.join(', ')}`)
  return lines.join('\n')
}
