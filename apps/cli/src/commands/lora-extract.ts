import {
  createAdapter,
  createDelta,
  type DeltaOptions,
  deltaProblems,
  type LowRankOptions,
  lowRankProblems,
  lowRankTargets,
  readDeltaStep,
  readVocabularies,
} from '@polygraft/delta'
import { type LowRank, type LowRankTarget, measureLowRank, measureStatistics } from '@polygraft/engine'
import type { Checkpoint, Problem, StateDict } from '@polygraft/tensor'
import { type Command, Option } from 'commander'
import { parseList, parseReal, parseWhole } from '../arguments.js'
import { formatNumber, formatShare, formatTable } from '../format.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoints } from '../open.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { measureWith, runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions } from './_options.js'

interface Arguments extends WriteArguments {
  readonly rank?: number
  readonly energy?: number
  readonly maxRank: number
  readonly targets?: readonly string[]
  readonly dtype: 'F32' | 'F16' | 'BF16'
  readonly top: number
  readonly json?: boolean
}

/** `polygraft lora extract <base> <post> -o <dir> (--rank <r> | --energy <share>)` */
export function addLoraExtract(parent: Command): void {
  const command = parent
    .command('extract')
    .description('Write the delta post - base, cut to a low rank, as a LoRA adapter that peft loads.')
    .argument('<base>', CHECKPOINT_HELP)
    .argument('<post>', CHECKPOINT_HELP)
    .addOption(new Option('--rank <r>', 'rank of every matrix').argParser(parseWhole(1)))
    .addOption(
      new Option('--energy <share>', "the least rank that keeps this share of a matrix' squares")
        .argParser(parseReal)
        .conflicts('rank'),
    )
    .addOption(
      new Option('--max-rank <r>', 'the most that --energy takes').argParser(parseWhole(1)).default(128),
    )
    .addOption(
      new Option(
        '--targets <names>',
        'modules, such as q_proj,v_proj (default: attention and feed-forward)',
      ).argParser(parseList),
    )
    .addOption(new Option('--dtype <dtype>', 'of the factors').choices(['F32', 'F16', 'BF16']).default('F32'))
    .addOption(
      new Option('--top <n>', 'show only the n matrices that lose most; 0 shows all')
        .argParser(parseWhole(0))
        .default(10),
    )
  addExample(
    addJson(addWriteOptions(command)),
    'polygraft lora extract ./base ./instruct -o ./adapter --rank 16',
    'polygraft lora extract ./base ./instruct -o ./adapter --energy 0.9 --max-rank 64 --targets q_proj,v_proj',
  )
  command.action(run)
}

async function run(
  baseLocation: string,
  postLocation: string,
  args: Arguments,
  command: Command,
): Promise<void> {
  if (args.rank === undefined && args.energy === undefined)
    command.error('error: give either --rank or --energy', { exitCode: 2 })
  const terminal = createTerminal(args.json ?? false)
  const [base, post] = await openCheckpoints(baseLocation, postLocation)
  const vocabularies = await readVocabularies({ base, post })
  const pair: DeltaOptions = { base, post, vocabularies, force: args.force ?? false }
  const delta = deltaProblems(pair).length > 0 ? undefined : createDelta(pair)
  const choice = delta && choiceOf(delta, args)
  const problems = choice ? lowRankProblems(choice) : deltaProblems(pair)
  const found = choice && problems.length === 0 ? await extract(terminal, choice, args) : undefined
  await runJob(
    terminal,
    {
      label: 'lora',
      inputs: localPaths([baseLocation, postLocation]),
      problems,
      warnings: delta ? warningsOf(delta) : [],
      build: () =>
        createAdapter({
          delta: delta!,
          factors: found!.factors,
          dtype: args.dtype,
          base: baseLocation.replace(/^hf:/, ''),
        }),
      ...(found ? { report: { fields: fieldsOf(found), text: () => describe(found, args.top) } } : {}),
    },
    args,
  )
}

function choiceOf(delta: Checkpoint, { rank, energy, maxRank, targets }: Arguments): LowRankOptions {
  const most = rank ?? maxRank
  return { delta, rank: most, ...(energy === undefined ? {} : { energy }), ...(targets ? { targets } : {}) }
}

/** What was found, and what of the delta lies elsewhere. */
interface Extracted {
  readonly factors: ReadonlyMap<string, LowRank>
  /** Sum of the squares of the tensors that the adapter does not have. */
  readonly otherSquares: number
}

/** Measures; a dry run takes the most that the factors can be. */
async function extract(terminal: Terminal, choice: LowRankOptions, args: Arguments): Promise<Extracted> {
  const targets = lowRankTargets(choice)
  const { sources } = choice.delta
  const tensors = [...targets.values()].map(({ tensor }) => tensor)
  if (args.dryRun) {
    const sizes = args.energy === undefined ? '' : '; what is written is at most this'
    terminal.note(`measuring would read both checkpoints, their large matrices three times${sizes}`)
    return {
      factors: new Map([...targets].map(([name, target]) => [name, largest(target)])),
      otherSquares: 0,
    }
  }
  const factors = await measureWith(terminal, 'extract', args, tensors, (measuring) =>
    measureLowRank(targets, sources, measuring),
  )
  const others = otherTensors(choice.delta, targets)
  const statistics = await measureWith(terminal, 'others', args, others.values(), (measuring) =>
    measureStatistics(others, sources, measuring),
  )
  const otherSquares = [...statistics.values()].reduce((sum, { sumSquares }) => sum + sumSquares, 0)
  return { factors, otherSquares }
}

function largest({ tensor: { shape }, rank: wanted }: LowRankTarget): LowRank {
  const [rows, width] = shape as [number, number]
  const rank = Math.min(wanted, rows, width)
  const [up, down] = [new Float32Array(rows * rank), new Float32Array(rank * width)]
  return { rank, up, down, values: new Float64Array(rank), squares: 0, energy: 1, exact: false, nonFinite: 0 }
}

/** The delta's tensors beside `targets`; none of a vocabulary some rows of which are no differences. */
function otherTensors(delta: Checkpoint, targets: ReadonlyMap<string, unknown>): StateDict {
  const isCopied = readDeltaStep(delta).copiedRows.length > 0
  const others = [...delta.tensors].filter(([name]) => !targets.has(name))
  return new Map(others.filter(([name]) => !isCopied || !/embed_tokens|lm_head/.test(name)))
}

function warningsOf(delta: Checkpoint): Problem[] {
  const { copiedRows } = readDeltaStep(delta)
  const rows = copiedRows.reduce((sum, [, count]) => sum + count, 0)
  if (rows === 0) return []
  return [
    {
      code: 'tokens-left-out',
      message: `Post has ${rows} rows of tokens that base lacks, which an adapter cannot bring`,
      next: 'Add these tokens to the base first, or graft the whole delta.',
    },
  ]
}

/** Shares and errors of a matrix, or of several together. */
function lossOf(squares: number, lost: number) {
  return {
    energy: squares === 0 ? 1 : 1 - lost / squares,
    relativeError: squares === 0 ? 0 : Math.sqrt(lost / squares),
  }
}

function fieldsOf({ factors, otherSquares }: Extracted) {
  const matrices = [...factors].map(([tensor, { rank, squares, energy, exact }]) => {
    const lost = squares * (1 - energy)
    return { tensor, rank, exact, squares, lost, ...lossOf(squares, lost) }
  })
  const squares = matrices.reduce((sum, each) => sum + each.squares, 0)
  const lost = matrices.reduce((sum, each) => sum + each.lost, 0)
  return {
    matrices: matrices.map(({ lost: _, ...each }) => each),
    adapted: lossOf(squares, lost),
    delta: lossOf(squares + otherSquares, lost + otherSquares),
  }
}

function describe(found: Extracted, top: number): string {
  const { matrices, adapted, delta } = fieldsOf(found)
  const worst = matrices.toSorted((a, b) => a.energy - b.energy)
  const shown = top === 0 ? worst : worst.slice(0, top)
  const ranks = matrices.map(({ rank }) => rank)
  const [least, most] = [Math.min(...ranks), Math.max(...ranks)]
  return [
    formatTable([
      ['matrix', 'rank', 'energy kept', 'relative error'],
      ...shown.map(({ tensor, rank, energy, relativeError }) => [
        tensor,
        `${rank}`,
        formatShare(energy),
        formatNumber(relativeError),
      ]),
    ]),
    ...(shown.length < matrices.length
      ? [`... ${matrices.length - shown.length} more matrices (--top 0 shows all)`]
      : []),
    `${matrices.length} matrices of rank ${least === most ? least : `${least} to ${most}`}: ${formatShare(adapted.energy)} of their energy kept, relative error ${formatNumber(adapted.relativeError)}`,
    `of the whole delta: ${formatShare(delta.energy)} kept, relative error ${formatNumber(delta.relativeError)}; the rest lies in what was cut, and in tensors that are no such matrices`,
  ].join('\n')
}
