import {
  BLOCK_ELEMENTS,
  type BlockReducer,
  columnGrams,
  type Digits,
  decode,
  digitCounter,
  findNth,
  type GramProducts,
  gramReducer,
  type PairMoments,
  pairReducer,
  type RankWindow,
  rowDivergences,
  rowGrams,
  type Statistics,
  statisticsReducer,
} from '@polygraft/kernels'
import { byteSize, type FloatDType, type Source, type SourceId, type Tensor } from '@polygraft/tensor'
import { type Factorizer, factorizer, type LowRank, type RankChoice } from './_factorize.js'
import type { Kernels } from './_kernel-pool.js'
import { rankPasses, type WindowResult } from './_rank-passes.js'
import { createEvaluator, type ReadRequest } from './evaluate.js'

/** What is measured. Plain data, but for the byte sources. */
export interface MeasureJob {
  readonly sources: ReadonlyMap<SourceId, Source>
  /** The tensors that go together: two for moments, any number for grams and windows, else one. */
  readonly operands: readonly (readonly Tensor[])[]
  /** Elements evaluated at a time. Nothing that is measured depends on it. */
  readonly tileElements: number
  readonly kernels: Kernels
}

/** What each kind of task gives. */
export interface MeasureResults {
  /** One for each block. */
  readonly moments: readonly PairMoments[]
  readonly statistics: readonly Statistics[]
  readonly grams: readonly GramProducts[]
  /** Products of each row, or over the task's rows of each column. */
  readonly rowGrams: Float64Array
  /** Of each row of the one tensor from that of the other. */
  readonly rowDivergences: Float64Array
  /** How many elements have which next digit. */
  readonly digits: Uint32Array
  /** Where the threshold must lie, if few elements lie there. */
  readonly sample: RankWindow | undefined
  /** Of each tensor. */
  readonly window: readonly WindowResult[]
  /** The element's index in the tensor. */
  readonly nth: number
  readonly lowRank: LowRank
  /** Of each row. */
  readonly rowSquares: Float64Array
}

export type MeasureKind = keyof MeasureResults

/** Work over elements [begin, begin + count) of one entry of `operands`. Plain data. */
export interface MeasureTask<Kind extends MeasureKind = MeasureKind> {
  readonly kind: Kind
  readonly operand: number
  /** A multiple of BLOCK_ELEMENTS; of rows, of `width`, and `count` too. */
  readonly begin: number
  readonly count: number
  /** digits: the magnitude's first ones; nth: all of them. */
  readonly digits?: Digits
  /** sample: of the elements, those above the threshold. */
  readonly share?: number
  /** window: of each tensor. */
  readonly windows?: readonly RankWindow[]
  /** window: all that lies there is wanted, however much. */
  readonly isWhole?: boolean
  /** rowGrams, rowDivergences, rowSquares: elements of a row. */
  readonly width?: number
  /** rowGrams: columns are wanted. */
  readonly columns?: boolean
  /** nth: which of the elements with this magnitude, from 0. There is one. */
  readonly nth?: number
  /** lowRank, which goes over a whole matrix. */
  readonly choice?: RankChoice
}

/** Where tasks are done: in this thread, or in others. */
export interface TaskRunner {
  /** Does all of `tasks`; they may end in any order. */
  run<Kind extends MeasureKind>(
    tasks: readonly MeasureTask<Kind>[],
    onResult: (task: number, result: MeasureResults[Kind]) => void,
  ): Promise<void>
  close(): Promise<void>
}

/** Does tasks. Holds compiled kernels and their buffers; not reentrant. */
export interface Measurer {
  /** A generator of reads, so that blocking and awaiting callers share it. */
  run<Kind extends MeasureKind>(task: MeasureTask<Kind>): Generator<ReadRequest, MeasureResults[Kind], void>
}

export function createMeasurer({ sources, operands, tileElements, kernels }: MeasureJob): Measurer {
  const evaluator = createEvaluator(sources, tileElements, kernels)
  const reducers = new Map<string, BlockReducer<unknown>>()
  const tile = new Uint8Array(tileElements * 8)
  let factors: Factorizer<ReadRequest> | undefined
  const ranks = rankPasses(evaluator, tileElements, kernels)

  /** Elements [begin, begin + count) of `tensor` into `out`. */
  function* fill(
    tensor: Tensor,
    begin: number,
    count: number,
    out: Uint8Array,
  ): Generator<ReadRequest, void> {
    const { dtype, expr } = tensor
    for (let done = 0; done < count; done += tileElements) {
      const size = Math.min(tileElements, count - done)
      const part = out.subarray(byteSize(dtype, done), byteSize(dtype, done + size))
      yield* evaluator.fill(expr, dtype, begin + done, size, part)
    }
  }

  function* blocks<Result>(
    tensors: readonly Tensor[],
    { begin, count }: MeasureTask,
    reducer: BlockReducer<Result>,
  ): Generator<ReadRequest, Result[]> {
    const results: Result[] = []
    for (let done = 0; done < count; done += BLOCK_ELEMENTS) {
      const size = Math.min(BLOCK_ELEMENTS, count - done)
      for (const [i, tensor] of tensors.entries()) yield* fill(tensor, begin + done, size, reducer.inputs[i]!)
      results.push(reducer.run(size))
    }
    return results
  }

  /** The tensor's elements of the task, tile by tile; each holds until the next. */
  function* tiles(
    { dtype, expr }: Tensor,
    { begin, count }: MeasureTask,
    use: (bytes: Uint8Array, begin: number) => boolean,
  ): Generator<ReadRequest, void> {
    for (let done = 0; done < count; done += tileElements) {
      const size = Math.min(tileElements, count - done)
      const bytes = tile.subarray(0, byteSize(dtype, size))
      yield* evaluator.fill(expr, dtype, begin + done, size, bytes)
      if (!use(bytes, begin + done)) return
    }
  }

  function* digits(tensor: Tensor, task: MeasureTask): Generator<ReadRequest, Uint32Array> {
    const counter = digitCounter(tensor.dtype as FloatDType, task.digits!)
    yield* tiles(tensor, task, (bytes) => {
      counter.add(bytes)
      return true
    })
    return counter.bins()
  }

  /** The tensors' elements of the task as numbers, tile by tile; each holds until the next. */
  function* numbers(
    tensors: readonly Tensor[],
    { begin, count }: MeasureTask,
    use: (values: readonly Float64Array[]) => void,
  ): Generator<ReadRequest, void> {
    const values = tensors.map(() => new Float64Array(tileElements))
    for (let done = 0; done < count; done += tileElements) {
      const size = Math.min(tileElements, count - done)
      for (const [i, tensor] of tensors.entries()) {
        const bytes = tile.subarray(0, byteSize(tensor.dtype, size))
        yield* fill(tensor, begin + done, size, bytes)
        decode(tensor.dtype as FloatDType, bytes, values[i]!.subarray(0, size))
      }
      use(values.map((all) => all.subarray(0, size)))
    }
  }

  function* grams(tensors: readonly Tensor[], task: MeasureTask): Generator<ReadRequest, Float64Array> {
    const { columns, width = 1 } = task
    const sums = columns ? columnGrams(tensors.length, width) : rowGrams(tensors.length, width)
    yield* numbers(tensors, task, (values) => sums.add(values))
    return sums.products()
  }

  function* divergences(tensors: readonly Tensor[], task: MeasureTask): Generator<ReadRequest, Float64Array> {
    const rows = rowDivergences(task.width!)
    yield* numbers(tensors, task, ([a, b]) => rows.add(a!, b!))
    return rows.result()
  }

  function* nth(tensor: Tensor, task: MeasureTask): Generator<ReadRequest, number> {
    const [first = 0, second = 0] = task.digits!
    const magnitude = first * 0x10000 + second
    let rest = task.nth!
    let index = -1
    yield* tiles(tensor, task, (bytes, begin) => {
      const equal = tensor.dtype === 'F32' ? ranks.countEqual(bytes, magnitude) : Number.POSITIVE_INFINITY
      if (equal <= rest) {
        rest -= equal
        return true
      }
      const found = findNth(tensor.dtype as FloatDType, bytes, task.digits!, rest)
      if ('index' in found) index = begin + found.index
      else rest -= found.passed
      return index < 0
    })
    return index
  }

  function* rowSquares(tensor: Tensor, task: MeasureTask): Generator<ReadRequest, Float64Array> {
    const width = task.width!
    const sums = new Float64Array(task.count / width)
    const values = new Float64Array(Math.min(tileElements, task.count))
    yield* tiles(tensor, task, (bytes, begin) => {
      const some = values.subarray(0, bytes.length / byteSize(tensor.dtype, 1))
      decode(tensor.dtype as FloatDType, bytes, some)
      for (const [i, x] of some.entries()) sums[Math.floor((begin - task.begin + i) / width)]! += x * x
      return true
    })
    return sums
  }

  function reducerFor<Result>(kind: string, tensors: readonly Tensor[], make: () => BlockReducer<Result>) {
    const key = `${kind} ${tensors.map(({ dtype }) => dtype)}`
    const reducer = (reducers.get(key) as BlockReducer<Result> | undefined) ?? make()
    reducers.set(key, reducer)
    return reducer
  }

  function* work(task: MeasureTask): Generator<ReadRequest, MeasureResults[MeasureKind]> {
    const tensors = operands[task.operand]!
    const dtypes = tensors.map(({ dtype }) => dtype as FloatDType)
    switch (task.kind) {
      case 'moments': {
        const make = () => pairReducer([dtypes[0]!, dtypes[1]!], kernels)
        return yield* blocks(tensors, task, reducerFor('pair', tensors, make))
      }
      case 'statistics': {
        const make = () => statisticsReducer(dtypes[0]!, kernels)
        return yield* blocks(tensors, task, reducerFor('one', tensors, make))
      }
      case 'grams':
        return yield* blocks(
          tensors,
          task,
          reducerFor('all', tensors, () => gramReducer(dtypes, kernels)),
        )
      case 'rowGrams':
        return yield* grams(tensors, task)
      case 'rowDivergences':
        return yield* divergences(tensors, task)
      case 'digits':
        return yield* digits(tensors[0]!, task)
      case 'sample':
        return yield* ranks.sample(tensors[0]!, task.count, task.share!)
      case 'window':
        return yield* ranks.windowed(tensors, task.windows!, task)
      case 'nth':
        return yield* nth(tensors[0]!, task)
      case 'lowRank':
        factors ??= factorizer(fill, kernels)
        return yield* factors.run(tensors[0]!, task.choice!)
      case 'rowSquares':
        return yield* rowSquares(tensors[0]!, task)
    }
  }

  return { run: work as Measurer['run'] }
}
