import { type DiffLine, type DiffReport, diffReport, type Pairs, pairTensors } from '@polygraft/delta'
import { formatProblem } from '@polygraft/tensor'
import { type Command, Option } from 'commander'
import { parseWhole } from '../arguments.js'
import { formatCount, formatNumber, formatShare, formatTable } from '../format.js'
import { measureDiff } from '../measure-diff.js'
import { CHECKPOINT_HELP, openCheckpoints } from '../open.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson, threadsOption } from './_options.js'

const WARNINGS_SHOWN = 5

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
    .addOption(threadsOption())
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
  args: { top: number; threads?: number; json?: boolean },
): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const [base, post] = await openCheckpoints(baseLocation, postLocation)
  const { pairs, ...rest } = await pairTensors(base, post)
  for (const warning of rest.warnings.slice(0, WARNINGS_SHOWN))
    terminal.note(`warning ${formatProblem(warning)}`)
  const report = diffReport(await measureDiff(terminal, base, post, pairs, args.threads))
  const result = { base: baseLocation, post: postLocation, ...report, ...rest }
  terminal.result(result, () => describe(report, args.top, rest))
}

function describe(report: DiffReport, top: number, rest: Omit<Pairs, 'pairs'>): string {
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
  if (rest.vocabulary) {
    const { compared, inBase, inPost } = rest.vocabulary
    lines.push(
      `tokenizers differ: embedding and head are compared by token, ${compared} rows of ${inBase} in base and ${inPost} in post`,
    )
  }
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
