import {
  isFloat,
  numel,
  type Problem,
  type Source,
  type SourceId,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { type LowRank, passesOf, type RankChoice } from './_factorize.js'
import { operandProblems } from './measure.js'
import { bytesOf, type MeasureOptions, measuring } from './measure-run.js'
import type { MeasureTask } from './measure-tasks.js'

type Sources = ReadonlyMap<SourceId, Source>

/** A matrix to be cut to a low rank. */
export interface LowRankTarget extends RankChoice {
  /** [M, N]. Declare a delta as F32. */
  readonly tensor: Tensor
}

/**
 * The truncated singular value decomposition of each matrix, as two factors. All singular vectors of matrices of up to 1 Mi elements with a
 * side of at most 256, in F64; of larger ones by a random sketch with two power iterations (Halko et al., arXiv:0909.4061), which reads
 * them three times, by blocks of rows, and whose products are F32: `energy` is what the factors keep of this very matrix either
 * way, and falls short of the best by little unless the values hardly decay. Threads take whole matrices; bits do not depend on them.
 * In memory are 256 rows of a matrix and about four times its factors.
 * @throws ModelError "not-a-matrix", "bad-rank", "bad-energy", "not-a-float", "not-finite" with every such tensor; what reading throws.
 */
export async function measureLowRank(
  targets: ReadonlyMap<string, LowRankTarget>,
  sources: Sources,
  options: MeasureOptions = {},
): Promise<Map<string, LowRank>> {
  const operands = new Map([...targets].map(([name, { tensor }]) => [name, [tensor]] as const))
  throwIfAny([...[...targets].flatMap(targetProblems), ...operandProblems(operands, sources)])
  const all = [...targets.values()]
  const passes = ({ tensor }: LowRankTarget) => passesOf(tensor.shape as [number, number])
  const tasks = all.map(({ tensor, rank, energy }, operand): MeasureTask<'lowRank'> => {
    const choice = { rank, ...(energy === undefined ? {} : { energy }) }
    return { kind: 'lowRank', operand, begin: 0, count: numel(tensor.shape), choice }
  })
  // The longest first, so that no thread is left with one at the end.
  tasks.sort((a, b) => b.count - a.count || a.operand - b.operand)
  const found: LowRank[] = []
  const bytesTotal = all.reduce((sum, target) => sum + passes(target) * bytesOf([target.tensor]), 0)
  await measuring(operands, sources, bytesTotal, options, ({ run }) =>
    run(
      tasks,
      ({ operand }, _, result) => {
        found[operand] = result
      },
      ({ operand }) => passes(all[operand]!),
    ),
  )
  const names = [...targets.keys()]
  throwIfAny(found.flatMap(({ nonFinite }, i) => (nonFinite > 0 ? [notFinite(names[i]!, nonFinite)] : [])))
  return new Map(names.map((name, i) => [name, found[i]!]))
}

/**
 * The L2 norm of each row of each matrix, squares summed in F64 from left to right.
 * @throws ModelError "not-a-matrix", "not-a-float" with every such tensor; what reading throws.
 */
export async function measureRowNorms(
  tensors: ReadonlyMap<string, Tensor>,
  sources: Sources,
  options: MeasureOptions = {},
): Promise<Map<string, Float32Array>> {
  const operands = new Map([...tensors].map(([name, tensor]) => [name, [tensor]] as const))
  throwIfAny([...[...tensors].flatMap(matrixProblems), ...operandProblems(operands, sources)])
  const all = [...tensors.values()]
  const norms = all.map(({ shape }) => new Float32Array(shape[0]!))
  const tasks = all.flatMap(({ shape }, operand) => rowTasks(shape as [number, number], operand))
  const bytesTotal = all.reduce((sum, tensor) => sum + bytesOf([tensor]), 0)
  if (tasks.length > 0)
    await measuring(operands, sources, bytesTotal, options, ({ run }) =>
      run(tasks, ({ operand, begin, width }, _, squares) => {
        norms[operand]!.set(squares.map(Math.sqrt), begin / width!)
      }),
    )
  return new Map([...tensors.keys()].map((name, i) => [name, norms[i]!]))
}

/** Elements of a task, about. */
const TASK_ELEMENTS = 1024 * 1024

function rowTasks([rows, width]: readonly [number, number], operand: number): MeasureTask<'rowSquares'>[] {
  const step = Math.max(1, Math.floor(TASK_ELEMENTS / width))
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => ({
    kind: 'rowSquares',
    operand,
    begin: i * step * width,
    count: Math.min(step, rows - i * step) * width,
    width,
  }))
}

function targetProblems([name, { tensor, rank, energy }]: readonly [string, LowRankTarget]): Problem[] {
  const problems = matrixProblems([name, tensor])
  if (!(Number.isSafeInteger(rank) && rank > 0))
    problems.push({
      code: 'bad-rank',
      message: 'The rank is no whole number above 0',
      tensor: name,
      received: `${rank}`,
    })
  if (energy !== undefined && !(energy > 0 && energy <= 1))
    problems.push({
      code: 'bad-energy',
      message: 'The share of the energy is none',
      tensor: name,
      expected: 'above 0, at most 1',
      received: `${energy}`,
    })
  return problems
}

function matrixProblems([name, { shape, dtype }]: readonly [string, Tensor]): Problem[] {
  if (shape.length === 2 && numel(shape) > 0 && isFloat(dtype)) return []
  if (!isFloat(dtype)) return [] // operandProblems says so.
  return [
    {
      code: 'not-a-matrix',
      message: 'Only matrices have rows and a rank',
      tensor: name,
      received: `[${shape}]`,
    },
  ]
}

function notFinite(tensor: string, count: number): Problem {
  return {
    code: 'not-finite',
    message: 'A matrix with NaN or infinite elements has no singular values',
    tensor,
    received: `${count} such elements`,
    next: 'Leave the tensor out, or mend the checkpoint.',
  }
}
