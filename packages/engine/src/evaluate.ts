import { buildKernel, type Kernel, type KernelExpr } from '@polygraft/kernels'
import {
  type ByteSource,
  byteSize,
  type DType,
  type Expr,
  type FloatDType,
  isFloat,
  type Source,
  type SourceId,
} from '@polygraft/tensor'
import { type KernelPool, type Kernels, kernelPool } from './_kernel-pool.js'
import { fillLiteral, fillRandom, rowCuts } from './_leaves.js'
import { storedDType } from './validate.js'

/** Bytes [begin, begin + out.length) of `bytes`, wanted in `out`. */
export interface ReadRequest {
  readonly file: string
  readonly bytes: ByteSource
  readonly begin: number
  readonly out: Uint8Array
}

/** How many elements a graft touched, and how many of those the output dtype could not show. Unit: elements. */
export interface GraftCounts {
  changed: number
  swallowed: number
}

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
    counts?: GraftCounts,
  ): Generator<ReadRequest, void, void>
}

interface Elementwise {
  /** Operands that are not elementwise themselves, each once. */
  readonly leaves: readonly { readonly expr: Expr; readonly dtype: FloatDType }[]
  readonly root: KernelExpr
}

interface Compiled {
  readonly leaves: Elementwise['leaves']
  readonly kernel: Kernel
}

/**
 * An evaluator with tiles of at most `maxElements` elements.
 * @param kernels 'simd' where it can be had (F64 always takes the reference), or 'reference'.
 */
export function createEvaluator(
  sources: ReadonlyMap<SourceId, Source>,
  maxElements: number,
  kernels: Kernels = 'simd',
): Evaluator {
  const pool: KernelPool = kernelPool(kernels, maxElements)
  const compiled = new WeakMap<Expr, Map<FloatDType, Compiled>>()

  function* fill(
    expr: Expr,
    dtype: DType,
    begin: number,
    count: number,
    out: Uint8Array,
    counts?: GraftCounts,
  ): Generator<ReadRequest, void, void> {
    if (count === 0) return
    switch (expr.op) {
      case 'read':
        if (storedDType(expr, sources) === dtype) return yield readOf(expr, dtype, begin, count, out)
        return yield* compute(expr, dtype as FloatDType, begin, count, out)
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
      case 'random':
        return fillRandom(expr, dtype as FloatDType, begin, count, out)
      case 'literal':
        return fillLiteral(expr, dtype as FloatDType, begin, count, out)
      default:
        return yield* compute(expr, dtype as FloatDType, begin, count, out, counts)
    }
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
    counts?: GraftCounts,
  ): Generator<ReadRequest, void, void> {
    const { leaves, kernel } = compiledFor(expr, dtype)
    const tile = pool.take(kernel)
    for (const [i, leaf] of leaves.entries())
      yield* fill(leaf.expr, leaf.dtype, begin, count, tile.inputs[i]!)
    const counted = tile.run(count, kernel.scalars)
    out.set(tile.outputs[0]!.subarray(0, byteSize(dtype, count)))
    pool.give(kernel, tile)
    if (counts) {
      counts.changed += counted.changed
      counts.swallowed += counted.swallowed
    }
  }

  function compiledFor(expr: Expr, dtype: FloatDType): Compiled {
    const byDType = compiled.get(expr) ?? new Map<FloatDType, Compiled>()
    compiled.set(expr, byDType)
    const found = byDType.get(dtype)
    if (found) return found
    const { root, leaves } = splitElementwise(expr, dtype === 'F64' ? 'F64' : 'F32', sources)
    const kernel = buildKernel(
      leaves.map((leaf) => leaf.dtype),
      [{ expr: root, dtype }],
    )
    byDType.set(dtype, { leaves, kernel })
    return { leaves, kernel }
  }

  return { fill }
}

/** The elementwise part of `expr` down to its leaves; a leaf that lies in files keeps its dtype, others are `wide`. */
function splitElementwise(
  expr: Expr,
  wide: 'F32' | 'F64',
  sources: ReadonlyMap<SourceId, Source>,
): Elementwise {
  const leaves: { expr: Expr; dtype: FloatDType }[] = []
  const known = new Map<Expr | string, KernelExpr>()

  function leaf(e: Expr): KernelExpr {
    const key = e.op === 'read' ? `${e.source} ${e.tensor}` : e
    const found = known.get(key)
    if (found) return found
    const stored = storedDType(e, sources)
    leaves.push({ expr: e, dtype: stored !== undefined && isFloat(stored) ? stored : wide })
    const made: KernelExpr = { op: 'input', index: leaves.length - 1 }
    known.set(key, made)
    return made
  }

  function visit(e: Expr): KernelExpr {
    switch (e.op) {
      case 'add':
      case 'sub':
      case 'mul':
        return { op: e.op, args: e.args.map(visit) }
      case 'scale':
        return { op: 'scale', by: e.by, arg: visit(e.arg) }
      case 'cast':
        return { op: 'cast', dtype: e.dtype, arg: visit(e.arg) }
      case 'graft':
        return { op: 'graft', cpt: visit(e.cpt), base: visit(e.base), post: visit(e.post), lambda: e.lambda }
      case 'ratio':
        return { op: 'ratio', num: visit(e.num), den: visit(e.den), guard: e.guard }
      default:
        return leaf(e)
    }
  }
  return { root: visit(expr), leaves }
}

function part(out: Uint8Array, dtype: DType, begin: number, count: number): Uint8Array {
  return out.subarray(byteSize(dtype, begin), byteSize(dtype, begin + count))
}
