import {
  addCounts,
  buildKernel,
  createCounts,
  type Kernel,
  type OutputSums,
  type TileKernel,
} from '@polygraft/kernels'
import {
  type ByteSource,
  byteSize,
  type DType,
  type Expr,
  type FloatDType,
  type Source,
  type SourceId,
  type Tensor,
} from '@polygraft/tensor'
import { isElementwise, type Leaf, splitElementwise } from './_elementwise.js'
import { type KernelPool, type Kernels, kernelPool } from './_kernel-pool.js'
import { columnCuts, fillLiteral, fillMask, fillRandom, rowCuts, spreadCuts } from './_leaves.js'
import { type LowRankFiller, lowRankFiller } from './_low-rank.js'
import { type RanksFiller, ranksFiller } from './_ranks.js'
import { storedDType } from './validate.js'

/** Bytes [begin, begin + out.length) of `bytes`, wanted in `out`. */
export interface ReadRequest {
  readonly file: string
  readonly bytes: ByteSource
  readonly begin: number
  readonly out: Uint8Array
}

/** What is counted of a tensor while it is computed: see `OutputCounts` of `@polygraft/kernels`. Unit: elements. */
export type TensorCounts = OutputSums

/** Tile-wise evaluation of expressions over `sources`. Holds compiled kernels and their buffers. */
export interface Evaluator {
  /**
   * Fills `out` with elements [begin, begin + count) of `expr` as `dtype`. A generator: it yields the reads that it
   * needs, one by one, and goes on when their bytes are there; so one piece of code serves blocking and awaited IO.
   */
  fill(
    expr: Expr,
    dtype: DType,
    begin: number,
    count: number,
    out: Uint8Array,
    counts?: TensorCounts,
  ): Generator<ReadRequest, void, void>
  /**
   * Elements [begin, begin + count) of each tensor of a group (see `groupTensors`), which share their operands: those
   * are read, and what several tensors have in common is computed, once. The views returned hold until the next call.
   * @param counts one for each tensor.
   */
  tile(
    group: readonly Tensor[],
    begin: number,
    count: number,
    counts: readonly TensorCounts[],
  ): Generator<ReadRequest, readonly Uint8Array[], void>
}

/** The kernel of some expressions, and what its inputs are. */
interface Compiled {
  readonly leaves: readonly Leaf[]
  readonly kernel: Kernel
}

/**
 * An evaluator with tiles of at most `maxElements` elements.
 * @param kernels 'simd' where it can be had (F64 goes by single elements, in WebAssembly too), or 'reference'.
 */
export function createEvaluator(
  sources: ReadonlyMap<SourceId, Source>,
  maxElements: number,
  kernels: Kernels = 'simd',
): Evaluator {
  const pool: KernelPool = kernelPool(kernels, maxElements)
  const compiled = new WeakMap<Expr, Map<FloatDType, Compiled>>()
  const compiledGroups = new WeakMap<readonly Tensor[], Compiled>()
  const scratch = new Uint8Array(maxElements * 8)
  let products: LowRankFiller<ReadRequest> | undefined
  let ranks: RanksFiller<ReadRequest> | undefined
  let spread: { expr?: Expr; dtype?: DType; bytes: Uint8Array } = { bytes: new Uint8Array(0) }

  function* fill(
    expr: Expr,
    dtype: DType,
    begin: number,
    count: number,
    out: Uint8Array,
    counts?: TensorCounts,
  ): Generator<ReadRequest, void, void> {
    if (count === 0) return
    switch (expr.op) {
      case 'read':
        if (storedDType(expr, sources) === dtype) return yield readOf(expr, dtype, begin, count, out)
        return yield* compute(expr, dtype as FloatDType, begin, count, out, counts)
      case 'concat': {
        let start = 0
        for (const [i, size] of expr.sizes.entries()) {
          const from = Math.max(begin, start)
          const to = Math.min(begin + count, start + size)
          if (from < to)
            yield* fill(
              expr.args[i]!,
              dtype,
              from - start,
              to - from,
              part(out, dtype, from - begin, to - from),
              counts,
            )
          start += size
        }
        return
      }
      case 'rows':
        for (const { offset, from, length } of rowCuts(expr, begin, count))
          yield* fill(expr.arg, dtype, from, length, part(out, dtype, offset, length), counts)
        return
      case 'columns':
        for (const { offset, from, length } of columnCuts(expr, begin, count))
          yield* fill(expr.arg, dtype, from, length, part(out, dtype, offset, length), counts)
        return
      case 'ranks':
        ranks ??= ranksFiller(fill, maxElements)
        return yield* ranks.fill(expr, dtype as FloatDType, begin, count, out)
      case 'spread':
        return yield* fillSpread(expr, dtype, begin, count, out)
      case 'lowrank':
        products ??= lowRankFiller(fill, maxElements, kernels)
        return yield* products.fill(expr, dtype as FloatDType, begin, count, out)
      case 'random':
        return fillRandom(expr, dtype as FloatDType, begin, count, out)
      case 'mask':
        return fillMask(expr, dtype as FloatDType, begin, count, out, kernels)
      case 'literal':
        return fillLiteral(expr, dtype as FloatDType, begin, count, out)
      default:
        return yield* compute(expr, dtype as FloatDType, begin, count, out, counts)
    }
  }

  /** What is spread is far smaller than what it fills: it is computed whole, and the last one is kept for the next tiles. */
  function* fillSpread(
    expr: Extract<Expr, { op: 'spread' }>,
    dtype: DType,
    begin: number,
    count: number,
    out: Uint8Array,
  ): Generator<ReadRequest, void, void> {
    if (spread.expr !== expr || spread.dtype !== dtype) {
      const bytes = new Uint8Array(byteSize(dtype, expr.count))
      for (let from = 0; from < expr.count; from += maxElements) {
        const length = Math.min(maxElements, expr.count - from)
        yield* fill(expr.arg, dtype, from, length, part(bytes, dtype, from, length))
      }
      spread = { expr, dtype, bytes }
    }
    const { bytes } = spread
    for (const { offset, from, length, repeats } of spreadCuts(expr, begin, count))
      if (repeats) fillWith(part(out, dtype, offset, length), part(bytes, dtype, from, 1))
      else part(out, dtype, offset, length).set(part(bytes, dtype, from, length))
  }

  function readOf(
    expr: Extract<Expr, { op: 'read' }>,
    dtype: DType,
    begin: number,
    count: number,
    out: Uint8Array,
  ): ReadRequest {
    const source = sources.get(expr.source)!
    const stored = source.tensors.get(expr.tensor)!
    return {
      file: stored.file,
      bytes: source.shards.get(stored.file)!,
      begin: stored.begin + byteSize(dtype, begin),
      out: out.subarray(0, byteSize(dtype, count)),
    }
  }

  function* compute(
    expr: Expr,
    dtype: FloatDType,
    begin: number,
    count: number,
    out: Uint8Array,
    counts?: TensorCounts,
  ): Generator<ReadRequest, void, void> {
    const compiledExpr = compiledFor(expr, dtype)
    const tile = yield* run(compiledExpr, begin, count, counts ? [counts] : [])
    out.set(tile.outputs[0]!.subarray(0, byteSize(dtype, count)))
    pool.give(compiledExpr.kernel, tile)
  }

  /** Fills the kernel's inputs and runs it. The tile is the caller's to give back. */
  function* run(
    { leaves, kernel }: Compiled,
    begin: number,
    count: number,
    counts: readonly TensorCounts[],
  ): Generator<ReadRequest, TileKernel, void> {
    const tile = pool.take(kernel)
    // Plain loops: V8 would optimise iterators again and again, in each thread.
    for (let i = 0; i < leaves.length; i++) {
      const { expr, dtype } = leaves[i]!
      // What is read as it is stored, which is nearly all, needs no generator of its own.
      if (expr.op === 'read' && storedDType(expr, sources) === dtype)
        yield readOf(expr, dtype, begin, count, tile.inputs[i]!)
      else yield* fill(expr, dtype, begin, count, tile.inputs[i]!)
    }
    const ends = kernel.ends.map((end) => end - begin)
    const counted = tile.run(count, kernel.scalars, ends)
    for (let i = 0; i < counts.length; i++) addCounts(counts[i]!, counted.outputs[i]!)
    return tile
  }

  function* tile(
    group: readonly Tensor[],
    begin: number,
    count: number,
    counts: readonly TensorCounts[],
  ): Generator<ReadRequest, readonly Uint8Array[], void> {
    const { dtype, expr } = group[0]!
    if (!isElementwise(expr)) {
      // Tensors that are not arithmetic share a group only when they are the same stored tensor.
      const bytes = scratch.subarray(0, byteSize(dtype, count))
      const counted = createCounts()
      yield* fill(expr, dtype, begin, count, bytes, counted)
      for (const sums of counts) addCounts(sums, counted)
      return group.map(() => bytes)
    }
    const compiledGroup = compiledGroups.get(group) ?? compile(group)
    compiledGroups.set(group, compiledGroup)
    const computed = yield* run(compiledGroup, begin, count, counts)
    pool.give(compiledGroup.kernel, computed)
    return computed.outputs.map((bytes, i) => bytes.subarray(0, byteSize(group[i]!.dtype, count)))
  }

  function compiledFor(expr: Expr, dtype: FloatDType): Compiled {
    const byDType = compiled.get(expr) ?? new Map<FloatDType, Compiled>()
    compiled.set(expr, byDType)
    const made = byDType.get(dtype) ?? compile([{ expr, dtype }])
    byDType.set(dtype, made)
    return made
  }

  function compile(outputs: readonly Pick<Tensor, 'expr' | 'dtype'>[]): Compiled {
    const wide = outputs.some(({ dtype }) => dtype === 'F64') ? 'F64' : 'F32'
    const { roots, leaves } = splitElementwise(
      outputs.map(({ expr }) => expr),
      wide,
      sources,
    )
    const inputs = leaves.map((leaf) => leaf.dtype)
    const kernel = buildKernel(
      inputs,
      roots.map((expr, i) => ({ expr, dtype: outputs[i]!.dtype as FloatDType })),
    )
    return { leaves, kernel }
  }

  return { fill, tile }
}

/** Repeats `element` over `out`. */
function fillWith(out: Uint8Array, element: Uint8Array): void {
  out.set(element)
  for (let done = element.length; done < out.length; done *= 2)
    out.copyWithin(done, 0, Math.min(done, out.length - done))
}

function part(out: Uint8Array, dtype: DType, begin: number, count: number): Uint8Array {
  return out.subarray(byteSize(dtype, begin), byteSize(dtype, begin + count))
}
