import type { FloatDType } from './dtype.js'

/** Names an opened checkpoint by its content: equal ids mean equal tensors. Made by `@polygraft/tensor-io`. */
export type SourceId = string

/** Half-open runs of rows to gather, `[first row, number of rows]`; a row may occur in several runs. */
export type RowRuns = readonly (readonly [start: number, count: number])[]

/**
 * A tensor's value as plain data: serialisable, hashable, sent to a worker as it is. Nothing is read until the engine
 * evaluates it. Elementwise arithmetic runs in F32 (in F64 where the output is F64), each operation rounded apart,
 * never fused, and is rounded once more to the output's dtype (nearest, ties to even; NaN becomes canonical).
 *
 * Element order is row-major; operands of elementwise operations have equal element counts.
 */
export type Expr =
  /** A stored tensor. Alone, with the output's dtype equal to the stored one, it is copied bit for bit. */
  | { readonly op: 'read'; readonly source: SourceId; readonly tensor: string }
  /** Left fold over the arguments: `((a + b) + c)`. */
  | { readonly op: 'add' | 'sub' | 'mul'; readonly args: readonly Expr[] }
  | { readonly op: 'scale'; readonly by: number; readonly arg: Expr }
  /** Rounded to `dtype` and back. */
  | { readonly op: 'cast'; readonly dtype: FloatDType; readonly arg: Expr }
  /**
   * cpt + lambda * (post - base), short-circuited so that an unchanged operand is passed on exactly (see `graft`): cpt where post
   * equals base; post where lambda is 1 and cpt equals `frozen`, which is what cpt holds of an untouched base (`base` itself
   * where left out).
   */
  | {
      readonly op: 'graft'
      readonly cpt: Expr
      readonly base: Expr
      readonly post: Expr
      readonly lambda: number
      readonly frozen?: Expr
    }
  /** Element of `on` where that of `mask` is not 0 (NaN is not), else of `off`. */
  | { readonly op: 'select'; readonly mask: Expr; readonly on: Expr; readonly off: Expr }
  /** num / den, and 1 wherever |den| <= guard. */
  | { readonly op: 'ratio'; readonly num: Expr; readonly den: Expr; readonly guard: number }
  /** `arg`, but no farther than `by` (not negative) from `to`: beyond that `to` + by or `to` - by; NaN where either is. */
  | { readonly op: 'clamp'; readonly arg: Expr; readonly to: Expr; readonly by: number }
  /**
   * Element i of `arg` where the magnitude of `by` (default `arg` itself) is above `threshold`, where it equals it and
   * i < tieEnd, and where it is NaN; else +0. So the k largest magnitudes, of equal ones those of lowest index
   * (`measureThresholds` of `@polygraft/engine`). i counts from this expression's own first element, whatever it is part of, so
   * tiles, threads and shards do not change what is kept. The threshold must be measured in the arithmetic's dtype (F32; F64
   * where the output is F64), or `by` be a `cast`.
   */
  | {
      readonly op: 'keep'
      readonly arg: Expr
      readonly by?: Expr
      readonly threshold: number
      readonly tieEnd: number
    }
  /**
   * The mean of the elected arguments: by default those whose sign is the sign of the sum of all, +0 where that sum is 0
   * (sign election and disjoint mean of TIES, arXiv:2306.01708). NaN where the sum is NaN. Sums are left folds; zeros have no
   * sign and are never elected.
   */
  | {
      readonly op: 'elect'
      readonly args: readonly Expr[]
      /** 'count': the sign that more arguments have. 'any': every argument that is not 0 is elected. */
      readonly by?: 'sum' | 'count' | 'any'
      /** 'sum': whose sign is elected, instead of the arguments' sum. */
      readonly sum?: Expr
      /** Where neither sign wins, those above 0 are elected instead of none. */
      readonly zero?: 'positive'
      /** The sum of the elected is divided by the sum of their weights (by 1 where that is 0); default 1 each. Empty: not divided. */
      readonly weights?: readonly number[]
    }
  /**
   * Independent draws, element i from (seed, name, i) alone, so that tiles, threads and shards do not change them.
   * normal: mean 0 and standard deviation `scale`; uniform: [-scale, scale).
   */
  | {
      readonly op: 'random'
      readonly distribution: 'normal' | 'uniform'
      readonly scale: number
      readonly seed: number
      readonly name: string
    }
  /**
   * 1 with probability `density`, else 0, independently for each element: where word i mod 4 of the generator's block
   * floor(i / 4) for (seed, name) is below density * 2^32. As `random`, it depends on (seed, name, i) alone.
   */
  | { readonly op: 'mask'; readonly density: number; readonly seed: number; readonly name: string }
  /** Rows of `arg` (of `width` elements each) gathered in the order of `runs`. Broadcasts when runs repeat. */
  | { readonly op: 'rows'; readonly arg: Expr; readonly width: number; readonly runs: RowRuns }
  /**
   * How many elements of its row, of `width` elements, rank below each element of `arg` in magnitude: 0 to width - 1; of equal ones that of lowest
   * index ranks highest, and NaN is above infinity. Rows are read whole, so tiles, threads and shards do not change it.
   */
  | { readonly op: 'ranks'; readonly arg: Expr; readonly width: number }
  /** Columns [begin, end) of `arg`, whose rows have `width` elements. */
  | {
      readonly op: 'columns'
      readonly arg: Expr
      readonly width: number
      readonly begin: number
      readonly end: number
    }
  /** Each of the `count` elements of `arg` `each` times in a row, and all of that `times` times over. */
  | {
      readonly op: 'spread'
      readonly arg: Expr
      readonly count: number
      readonly each: number
      readonly times: number
    }
  /** The arguments' elements one after the other; `sizes[i]` is the number of elements of `args[i]`. */
  | { readonly op: 'concat'; readonly args: readonly Expr[]; readonly sizes: readonly number[] }
  /**
   * The matrix product `up` [rows, rank] x `down` [rank, width], as LoRA's B A (arXiv:2106.09685): element (o, i) is the left
   * fold over k, from +0, of up[o, k] * down[k, i]; beyond a rank of 256 each 256 k are folded apart, and these sums are folded.
   * With `transposed` the product's transpose [width, rows], for layers that store their weight as [in, out].
   */
  | {
      readonly op: 'lowrank'
      readonly up: Expr
      readonly down: Expr
      readonly rows: number
      readonly rank: number
      readonly width: number
      readonly transposed?: boolean
    }
  /** Values known when the expression is built: little-endian F32, base64. */
  | { readonly op: 'literal'; readonly f32: string }

/** `source`'s tensor as it is stored. */
export function read(source: SourceId, tensor: string): Expr {
  return { op: 'read', source, tensor }
}

/** `by * arg`; `arg` itself when `by` is 1. */
export function scale(by: number, arg: Expr): Expr {
  return by === 1 ? arg : { op: 'scale', by, arg }
}

/** The expressions that `expr` is made of, outermost operands first; empty for a leaf. */
export function operands(expr: Expr): readonly Expr[] {
  switch (expr.op) {
    case 'read':
    case 'random':
    case 'mask':
    case 'literal':
      return []
    case 'add':
    case 'sub':
    case 'mul':
    case 'concat':
      return expr.args
    case 'elect':
      return expr.sum ? [...expr.args, expr.sum] : expr.args
    case 'graft':
      return [expr.cpt, expr.base, expr.post, ...(expr.frozen ? [expr.frozen] : [])]
    case 'select':
      return [expr.mask, expr.on, expr.off]
    case 'ratio':
      return [expr.num, expr.den]
    case 'clamp':
      return [expr.arg, expr.to]
    case 'keep':
      return expr.by ? [expr.arg, expr.by] : [expr.arg]
    case 'lowrank':
      return [expr.up, expr.down]
    default:
      return [expr.arg]
  }
}

/** Every `read` inside `expr`, in order, repeats included. */
export function* reads(expr: Expr): Generator<Extract<Expr, { op: 'read' }>> {
  if (expr.op === 'read') yield expr
  else for (const operand of operands(expr)) yield* reads(operand)
}

/** A `literal` holding `values`. */
export function literal(values: Float32Array): Expr {
  const bytes = new Uint8Array(values.length * 4)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < values.length; i++) view.setFloat32(i * 4, values[i]!, true)
  let binary = ''
  for (let i = 0; i < bytes.length; i += 0x8000)
    binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000))
  return { op: 'literal', f32: btoa(binary) }
}

/** The values of a `literal`. */
export function literalValues(expr: Extract<Expr, { op: 'literal' }>): Float32Array {
  const binary = atob(expr.f32)
  const view = new DataView(new ArrayBuffer(binary.length))
  for (let i = 0; i < binary.length; i++) view.setUint8(i, binary.charCodeAt(i))
  return Float32Array.from({ length: binary.length / 4 }, (_, i) => view.getFloat32(i * 4, true))
}
