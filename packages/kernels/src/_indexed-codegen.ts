import { acrossLanes } from './_rows-codegen.js'
import { body, step } from './_vector-codegen.js'
import { type Code, doWhile, f32x4, f64x2, get, i32, moduleOf, set, shuffle32, v128 } from './_wasm.js'

/*
 * Loops for training over rows that indices (words) name, over rotated heads, and over whole tensors; F32, four elements a turn.
 * `training-reference.ts` says in plain TypeScript what they compute. Counts are at least 1.
 */

const LOCALS = 24
const { add, sub, mul, div, sqrt } = f32x4

/** The address of row `index` (a word at the address in `pointer`). */
const rowAt = (base: number, pointer: number, rowBytes: number) =>
  i32.add(get(base), i32.mul(i32.load(get(pointer)), get(rowBytes)))

/** `run(x, out, turns)`: out = x. Typed arrays copy and fill shared memory word by word, atomically. */
export function generateCopyOver(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, out, turns] = [0, 1, 2] as const
  const turn = [
    ...v128.store(get(out), v128.load(get(x), 0), 0),
    ...[step(x, 16), step(out, 16), step(turns, -1)].flat(),
  ]
  return moduleOf(3, 0, 0, doWhile(turn, get(turns)), limits)
}

/** `run(x, turns)`: x = 0. */
export function generateClear(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, turns] = [0, 1] as const
  const turn = [...v128.store(get(x), v128.splat(0), 0), ...step(x, 16), ...step(turns, -1)]
  return moduleOf(2, 0, 0, doWhile(turn, get(turns)), limits)
}

/** `run(x, indices, out, count, turns, row bytes)`: out row i = x row indices[i]. */
export function generateGather(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, indices, out, count, turns, rowBytes, p, n] = [0, 1, 2, 3, 4, 5, 6, 7] as const
  const turn = [
    ...v128.store(get(out), v128.load(get(p), 0), 0),
    ...[step(p, 16), step(out, 16), step(n, -1)].flat(),
  ]
  const row = [
    ...[set(p, rowAt(x, indices, rowBytes)), set(n, get(turns)), doWhile(turn, get(n))].flat(),
    ...[step(indices, 4), step(count, -1)].flat(),
  ]
  return moduleOf(6, 2, 0, doWhile(row, get(count)), limits)
}

/** `run(y, places, weights, out, rows, topK, turns, row bytes)`: out row t += the sum over slots s of weights[t, s] y row places[t, s]. */
export function generateCombine(limits: Code): Uint8Array<ArrayBuffer> {
  const [y, places, weights, out, rows, topK, turns, rowBytes] = [0, 1, 2, 3, 4, 5, 6, 7] as const
  const [s, n, p, to, by] = [8, 9, 10, 11, 12] as const
  const turn = [
    ...v128.store(get(to), add(v128.load(get(to), 0), mul(get(by), v128.load(get(p), 0))), 0),
    ...[step(p, 16), step(to, 16), step(n, -1)].flat(),
  ]
  const slot = [
    ...[set(p, rowAt(y, places, rowBytes)), set(to, get(out)), set(n, get(turns))].flat(),
    ...[set(by, v128.load32Splat(get(weights), 0)), doWhile(turn, get(n))].flat(),
    ...[step(places, 4), step(weights, 4), step(s, -1)].flat(),
  ]
  const row = [
    ...[set(s, get(topK)), doWhile(slot, get(s))].flat(),
    ...[set(out, i32.add(get(out), get(rowBytes))), step(rows, -1)].flat(),
  ]
  return moduleOf(8, 4, 1, doWhile(row, get(rows)), limits)
}

/**
 * `run(d, sources, y, weights, dy, dots, count, turns, row bytes)`: with d row sources[i]: dots[i] = d . y row i, dy row i = weights[i] d.
 */
export function generateSpread(limits: Code): Uint8Array<ArrayBuffer> {
  const [d, sources, y, weights, dy, dots, count, turns, rowBytes] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const
  const [p, n, by, sum] = [9, 10, 11, 12] as const
  const { code, keep } = body(13)
  const value = keep(v128.load(get(p), 0))
  const turn = [
    ...code.flat(),
    ...set(sum, add(get(sum), mul(value, v128.load(get(y), 0)))),
    ...v128.store(get(dy), mul(value, get(by)), 0),
    ...[step(p, 16), step(y, 16), step(dy, 16), step(n, -1)].flat(),
  ]
  const fold = body(16)
  const total = acrossLanes(fold.keep, get(sum))
  const row = [
    ...[set(p, rowAt(d, sources, rowBytes)), set(n, get(turns))].flat(),
    ...[set(by, v128.load32Splat(get(weights), 0)), set(sum, v128.splat(0)), doWhile(turn, get(n))].flat(),
    ...fold.code.flat(),
    ...v128.store32First(get(dots), total),
    ...[step(sources, 4), step(weights, 4), step(dots, 4), step(count, -1)].flat(),
  ]
  return moduleOf(9, 2, LOCALS, doWhile(row, get(count)), limits)
}

/**
 * `run(x, cos, sin, rows, heads, bytes of a head, bytes of half of what is rotated, turns)`, in place: (a, b) -> (a cos - b sin,
 * b cos + a sin), or with -sin.
 */
export function generateRotate(isBack: boolean, limits: Code): Uint8Array<ArrayBuffer> {
  const [x, cos, sin, rows, heads, headBytes, halfBytes, turns] = [0, 1, 2, 3, 4, 5, 6, 7] as const
  const [p, pc, ps, n, h] = [8, 9, 10, 11, 12] as const
  const { code, keep } = body(13)
  const [a, b] = [keep(v128.load(get(p), 0)), keep(v128.load(i32.add(get(p), get(halfBytes)), 0))]
  const [c, s] = [keep(v128.load(get(pc), 0)), keep(v128.load(get(ps), 0))]
  const [first, second] = isBack ? [add, sub] : [sub, add]
  const turn = [
    ...code.flat(),
    ...v128.store(get(p), first(mul(a, c), mul(b, s)), 0),
    ...v128.store(i32.add(get(p), get(halfBytes)), second(mul(b, c), mul(a, s)), 0),
    ...[step(p, 16), step(pc, 16), step(ps, 16), step(n, -1)].flat(),
  ]
  const head = [
    ...[set(p, get(x)), set(pc, get(cos)), set(ps, get(sin)), set(n, get(turns))].flat(),
    ...[doWhile(turn, get(n)), set(x, i32.add(get(x), get(headBytes))), step(h, -1)].flat(),
  ]
  const row = [
    ...[set(h, get(heads)), doWhile(head, get(h))].flat(),
    ...[set(cos, i32.add(get(cos), get(halfBytes))), set(sin, i32.add(get(sin), get(halfBytes)))].flat(),
    ...step(rows, -1),
  ]
  return moduleOf(8, 5, LOCALS, doWhile(row, get(rows)), limits)
}

/**
 * `run(value, gradient, first, second, turns, scalars)`: AdamW (arXiv:1711.05101). Scalars: factor on the gradient, beta1, 1 - beta1, beta2,
 * 1 - beta2, 1 - rate * decay, rate / (1 - beta1^t), sqrt(1 - beta2^t), eps.
 */
export function generateAdamW(limits: Code): Uint8Array<ArrayBuffer> {
  const [value, gradient, first, second, turns, scalars] = [0, 1, 2, 3, 4, 5] as const
  const scalar = (i: number) => get(6 + i)
  const begin = Array.from({ length: 9 }, (_, i) => set(6 + i, v128.load32Splat(get(scalars), i * 4))).flat()
  const { code, keep } = body(15)
  const g = keep(mul(v128.load(get(gradient), 0), scalar(0)))
  const m = keep(add(mul(scalar(1), v128.load(get(first), 0)), mul(scalar(2), g)))
  const v = keep(add(mul(scalar(3), v128.load(get(second), 0)), mul(mul(scalar(4), g), g)))
  const root = add(div(sqrt(v), scalar(7)), scalar(8))
  const next = keep(sub(mul(v128.load(get(value), 0), scalar(5)), div(mul(scalar(6), m), root)))
  const turn = [
    ...code.flat(),
    ...v128.store(get(first), m, 0),
    ...v128.store(get(second), v, 0),
    ...v128.store(get(value), next, 0),
    ...[step(value, 16), step(gradient, 16), step(first, 16), step(second, 16), step(turns, -1)].flat(),
  ]
  return moduleOf(6, 0, LOCALS, [...begin, ...doWhile(turn, get(turns))], limits)
}

/** `run(x, turns, sums)`: sums of squares in F64, of elements i mod 4, to four F64. */
export function generateSquares(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, turns, sums, low, high] = [0, 1, 2, 3, 4] as const
  const { code, keep } = body(5)
  const value = keep(v128.load(get(x), 0))
  const a = keep(f64x2.promoteLow(value))
  const b = keep(f64x2.promoteLow(shuffle32(value, value, [2, 3, 2, 3])))
  const turn = [
    ...code.flat(),
    ...set(low, f64x2.add(get(low), f64x2.mul(a, a))),
    ...set(high, f64x2.add(get(high), f64x2.mul(b, b))),
    ...[step(x, 16), step(turns, -1)].flat(),
  ]
  const end = [...v128.store(get(sums), get(low), 0), ...v128.store(get(sums), get(high), 16)]
  const begin = [...set(low, v128.splat(0)), ...set(high, v128.splat(0))]
  return moduleOf(3, 0, LOCALS, [...begin, ...doWhile(turn, get(turns)), ...end], limits)
}
