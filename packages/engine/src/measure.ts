import {
  addGram,
  addMoments,
  addStatistics,
  createGram,
  createMoments,
  createStatistics,
  MAX_GRAM,
  type PairMoments,
  type Statistics,
} from '@polygraft/kernels'
import {
  isFloat,
  numel,
  type Problem,
  type Source,
  type SourceId,
  type StateDict,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { type GramTarget, measureRowGrams, rowProblems } from './measure-row-grams.js'
import { bytesOf, type MeasureOptions, measuring, split } from './measure-run.js'
import type { MeasureResults } from './measure-tasks.js'
import { tensorProblems } from './validate.js'

type Sources = ReadonlyMap<SourceId, Source>

/** Two tensors of equal element count. */
export type TensorPair = readonly [a: Tensor, b: Tensor]

/** Blocks of a task: enough to make sending it cheap, few enough to share work evenly. */
const TASK_BLOCKS = 16

/**
 * Norms and inner products of pairs of tensors, one result for each name, in F64. A tensor's values are those that it
 * would be stored with: declare an expression as F32 to measure it unrounded. With m a result, |a| = sqrt(m.sumA2),
 * |b - a| = sqrt(m.sumDelta2), and the cosine is m.dot / (|a| |b|).
 *
 * Additions go in one fixed order (`BLOCK_ELEMENTS`), so the bits depend on the values alone.
 * @throws ModelError 'shape-mismatch' and 'not-a-float' with every such tensor; what reading throws.
 */
export async function measureMoments(
  pairs: ReadonlyMap<string, TensorPair>,
  sources: Sources,
  options: MeasureOptions = {},
): Promise<Map<string, PairMoments>> {
  throwIfAny([...pairs].flatMap(([name, [a, b]]) => pairProblems(name, a, b)))
  return measureBlocks('moments', pairs, sources, options, (blocks) => {
    const into = createMoments()
    for (const block of blocks) addMoments(into, block)
    return into
  })
}

/**
 * Norms and extrema of tensors; as `measureMoments` otherwise.
 * @throws ModelError 'not-a-float' with every such tensor; what reading throws.
 */
export async function measureStatistics(
  tensors: StateDict,
  sources: Sources,
  options: MeasureOptions = {},
): Promise<Map<string, Statistics>> {
  const operands = new Map([...tensors].map(([name, tensor]) => [name, [tensor]] as const))
  return measureBlocks('statistics', operands, sources, options, (blocks) => {
    const into = createStatistics()
    for (const block of blocks) addStatistics(into, block)
    return into
  })
}

/** Dot products of every two tensors, i <= j, row by row: of the whole, or of one row or column after the other. */
export interface Gram {
  readonly products: Float64Array
}

/**
 * All dot products of the tensors of each entry, in F64 and in one pass: `products` has those of (i, j), i <= j, row by row. So norms,
 * cosines, and whatever else lies in the span of the tensors. Additions go in one fixed order as in `measureMoments` (columns: see
 * `measureRowGrams`); an index where any of the tensors is NaN or infinite is left out.
 * @throws ModelError 'shape-mismatch', 'bad-count' (no tensor, or more than 32; rows that are not whole) and 'not-a-float' with every such tensor; what reading throws.
 */
export async function measureGrams(
  wanted: ReadonlyMap<string, GramTarget>,
  sources: Sources,
  options: MeasureOptions = {},
): Promise<Map<string, Gram>> {
  const operands = new Map([...wanted].map(([name, { tensors }]) => [name, tensors]))
  throwIfAny(
    [...wanted].flatMap(([name, target]) => [...gramProblems(name, target), ...rowProblems(name, target)]),
  )
  throwIfAny(operandProblems(operands, sources))
  const byRow = new Map([...wanted].filter(([, { by }]) => by))
  const whole = new Map([...operands].filter(([name]) => !byRow.has(name)))
  const grams = await measureBlocks('grams', whole, sources, options, (blocks, name) => {
    const into = createGram(operands.get(name)!.length)
    for (const block of blocks) addGram(into, block)
    return into
  })
  const rows = byRow.size > 0 ? await measureRowGrams(byRow, sources, options) : new Map()
  return new Map(
    [...wanted.keys()].map((name) => [name, { products: rows.get(name) ?? grams.get(name)!.products }]),
  )
}

/** What keeps tensors from being measured, for all of them. */
export function operandProblems(
  operands: ReadonlyMap<string, readonly Tensor[]>,
  sources: Sources,
): Problem[] {
  return [...operands].flatMap(([name, tensors]) =>
    tensors.flatMap((tensor) => [...dtypeProblems(name, tensor), ...tensorProblems(name, tensor, sources)]),
  )
}

async function measureBlocks<Kind extends 'moments' | 'statistics' | 'grams', Result>(
  kind: Kind,
  operands: ReadonlyMap<string, readonly Tensor[]>,
  sources: Sources,
  options: MeasureOptions,
  combine: (blocks: MeasureResults[Kind][number][], name: string) => Result,
): Promise<Map<string, Result>> {
  throwIfAny(operandProblems(operands, sources))
  const names = [...operands.keys()]
  const parts: MeasureResults[Kind][] = []
  const tasks = [...operands.values()].flatMap(([tensor], operand) =>
    split<Kind>(tensor!, TASK_BLOCKS, { kind, operand }),
  )
  const bytesTotal = [...operands.values()].reduce((sum, tensors) => sum + bytesOf(tensors), 0)
  await measuring(operands, sources, bytesTotal, options, ({ run }) =>
    run(tasks, (_, index, result) => {
      parts[index] = result
    }),
  )
  const blocks = new Map<number, MeasureResults[Kind][number][]>()
  for (const [i, { operand }] of tasks.entries())
    blocks.set(operand, [...(blocks.get(operand) ?? []), ...parts[i]!])
  return new Map(names.map((name, operand) => [name, combine(blocks.get(operand) ?? [], name)]))
}

function dtypeProblems(name: string, { dtype }: Tensor): Problem[] {
  if (isFloat(dtype)) return []
  const message = 'Only float tensors are measured'
  return [{ code: 'not-a-float', message, tensor: name, expected: 'F64, F32, F16 or BF16', received: dtype }]
}

function gramProblems(name: string, { tensors }: GramTarget): Problem[] {
  const [first, ...others] = tensors
  if (first && tensors.length <= MAX_GRAM) return others.flatMap((other) => pairProblems(name, first, other))
  return [
    {
      code: 'bad-count',
      message: 'Products are measured of another number of tensors',
      tensor: name,
      expected: `1 to ${MAX_GRAM}`,
      received: `${tensors.length}`,
    },
  ]
}

/** Two tensors that do not have the same number of elements. */
export function pairProblems(name: string, a: Tensor, b: Tensor): Problem[] {
  if (numel(a.shape) === numel(b.shape)) return []
  return [
    {
      code: 'shape-mismatch',
      message: 'The two tensors differ in shape',
      tensor: name,
      expected: `[${a.shape}]`,
      received: `[${b.shape}]`,
    },
  ]
}
