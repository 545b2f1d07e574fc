import { exponential, splatF32 } from './_exponential.js'
import type { Let } from './_lanes.js'
import { body, step } from './_vector-codegen.js'
import { type Code, doWhile, f32x4, get, i32, i32x4, moduleOf, set, shuffle32, v128, when } from './_wasm.js'

/*
 * Loops over rows of F32, four elements a turn, for training. `training-reference.ts` says in plain TypeScript what they compute. Sums over
 * a row go lane by lane (element i to lane i mod 4), then (0 + 1) + (2 + 3). Rows and turns are at least 1.
 */

/** More than any loop here keeps. */
const LOCALS = 64

const { add, sub, mul, div, sqrt, max } = f32x4
const one = splatF32(1)
const LOWEST = splatF32(Number.NEGATIVE_INFINITY)

/** In every lane the sum of all, (0 + 1) + (2 + 3). */
export function acrossLanes(keep: Let, lanes: Code, combine: (a: Code, b: Code) => Code = add): Code {
  const all = keep(lanes)
  const pairs = keep(combine(all, shuffle32(all, all, [1, 0, 3, 2])))
  return combine(pairs, shuffle32(pairs, pairs, [2, 3, 0, 1]))
}

/** `run(x, weight, y, scales, rows, turns, scalars)`: r = 1 / sqrt(mean(x^2) + eps), y = x r weight; scalars: eps, width. */
export function generateNorm(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, weight, y, scales, rows, turns, scalars, p, pw, n] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const
  const [eps, width, sum, r] = [10, 11, 12, 13] as const
  const square = body(14)
  const value = square.keep(v128.load(get(p), 0))
  const squares = [
    ...square.code.flat(),
    ...set(sum, add(get(sum), mul(value, value))),
    ...step(p, 16),
    ...step(n, -1),
  ]
  const write = [
    ...v128.store(get(y), mul(mul(v128.load(get(x), 0), get(r)), v128.load(get(pw), 0)), 0),
    ...[step(x, 16), step(y, 16), step(pw, 16), step(n, -1)].flat(),
  ]
  const fold = body(20)
  const root = sqrt(add(div(acrossLanes(fold.keep, get(sum)), get(width)), get(eps)))
  const scale = set(r, div(one, root))
  const row = [
    ...[set(p, get(x)), set(n, get(turns)), set(sum, v128.splat(0))].flat(),
    ...doWhile(squares, get(n)),
    ...fold.code.flat(),
    ...scale,
    ...v128.store32First(get(scales), get(r)),
    ...[set(pw, get(weight)), set(n, get(turns))].flat(),
    ...doWhile(write, get(n)),
    ...[step(scales, 4), step(rows, -1)].flat(),
  ]
  const begin = [
    ...set(eps, v128.load32Splat(get(scalars), 0)),
    ...set(width, v128.load32Splat(get(scalars), 4)),
  ]
  return moduleOf(7, 3, LOCALS, [...begin, ...doWhile(row, get(rows))], limits)
}

/**
 * `run(x, weight, scales, dy, dx, rows, turns, scalars)`: dx = or += w dy r - x r^3 sum(w dy x) / width; scalars: width.
 */
export function generateNormBackward(adds: boolean, limits: Code): Uint8Array<ArrayBuffer> {
  const [x, weight, scales, dy, dx, rows, turns, scalars] = [0, 1, 2, 3, 4, 5, 6, 7] as const
  const [px, pw, pd, n] = [8, 9, 10, 11] as const
  const [width, sum, r, back] = [12, 13, 14, 15] as const
  const product = (w: number, d: number) => mul(v128.load(get(d), 0), v128.load(get(w), 0))
  const along = [
    ...set(sum, add(get(sum), mul(product(pw, pd), v128.load(get(px), 0)))),
    ...[step(px, 16), step(pw, 16), step(pd, 16), step(n, -1)].flat(),
  ]
  const change = sub(mul(product(pw, dy), get(r)), mul(v128.load(get(x), 0), get(back)))
  const write = [
    ...v128.store(get(dx), adds ? add(v128.load(get(dx), 0), change) : change, 0),
    ...[step(x, 16), step(pw, 16), step(dy, 16), step(dx, 16), step(n, -1)].flat(),
  ]
  const fold = body(16)
  const total = acrossLanes(fold.keep, get(sum))
  const row = [
    ...[set(px, get(x)), set(pw, get(weight)), set(pd, get(dy))].flat(),
    ...[set(n, get(turns)), set(sum, v128.splat(0))].flat(),
    ...doWhile(along, get(n)),
    ...set(r, v128.load32Splat(get(scales), 0)),
    ...fold.code.flat(),
    ...set(back, div(mul(mul(mul(total, get(r)), get(r)), get(r)), get(width))),
    ...[set(pw, get(weight)), set(n, get(turns))].flat(),
    ...doWhile(write, get(n)),
    ...[step(scales, 4), step(rows, -1)].flat(),
  ]
  const begin = set(width, v128.load32Splat(get(scalars), 0))
  return moduleOf(8, 4, LOCALS, [...begin, ...doWhile(row, get(rows))], limits)
}

/** `run(gate, up, hidden, turns)`: hidden = silu(gate) up. */
export function generateSilu(limits: Code): Uint8Array<ArrayBuffer> {
  const [gate, up, hidden, turns] = [0, 1, 2, 3] as const
  const { code, keep } = body(4)
  const x = keep(v128.load(get(gate), 0))
  const silu = mul(x, div(one, add(one, exponential(keep, negative(x)))))
  const product = keep(mul(silu, v128.load(get(up), 0)))
  const turn = [
    ...code.flat(),
    ...v128.store(get(hidden), product, 0),
    ...[step(gate, 16), step(up, 16), step(hidden, 16), step(turns, -1)].flat(),
  ]
  return moduleOf(4, 0, LOCALS, doWhile(turn, get(turns)), limits)
}

/** `run(gate, up, dHidden, turns)`: gate and up become their gradients: d up (s + silu (1 - s)) and d silu, s = sigmoid(gate). */
export function generateSiluBackward(limits: Code): Uint8Array<ArrayBuffer> {
  const [gate, up, dHidden, turns] = [0, 1, 2, 3] as const
  const { code, keep } = body(4)
  const x = keep(v128.load(get(gate), 0))
  const s = keep(div(one, add(one, exponential(keep, negative(x)))))
  const silu = keep(mul(x, s))
  const d = keep(v128.load(get(dHidden), 0))
  const slope = keep(add(s, mul(silu, sub(one, s))))
  const dGate = keep(mul(mul(d, v128.load(get(up), 0)), slope))
  const turn = [
    ...code.flat(),
    ...v128.store(get(gate), dGate, 0),
    ...v128.store(get(up), mul(d, silu), 0),
    ...[step(gate, 16), step(up, 16), step(dHidden, 16), step(turns, -1)].flat(),
  ]
  return moduleOf(4, 0, LOCALS, doWhile(turn, get(turns)), limits)
}

/**
 * `run(scores, rows, row bytes, window, scalars)`: row i becomes softmax(scale x) over elements max(0, i - window + 1) to i, and 0
 * elsewhere; scalars: scale.
 */
export function generateCausalSoftmax(limits: Code): Uint8Array<ArrayBuffer> {
  const [scores, rows, rowBytes, window, scalars] = [0, 1, 2, 3, 4] as const
  const [i, p, end, rowEnd] = [5, 6, 7, 8] as const
  const [scale, lane, last, first, most, sum, by] = [9, 10, 11, 12, 13, 14, 15] as const
  const seen = v128.andnot(i32x4.gtS(get(lane), get(first)), i32x4.gtS(get(lane), get(last)))
  const turn = [...set(lane, i32x4.add(get(lane), v128.splat(4))), ...step(p, 16)]
  const find = [...set(most, max(get(most), v128.select(v128.load(get(p), 0), LOWEST, seen))), ...turn]
  const raise = body(20)
  const above = mul(sub(v128.load(get(p), 0), get(most)), get(scale))
  const power = raise.keep(v128.and(exponential(raise.keep, above), seen))
  const exponentials = [
    ...raise.code.flat(),
    ...v128.store(get(p), power, 0),
    ...set(sum, add(get(sum), power)),
    ...turn,
  ]
  const divide = [...v128.store(get(p), mul(v128.load(get(p), 0), get(by)), 0), ...step(p, 16)]
  const clear = [...v128.store(get(p), v128.splat(0), 0), ...step(p, 16)]
  const again = [...set(p, get(scores)), ...set(lane, v128.const32([0, 1, 2, 3]))]
  const fold = body(50)
  const foldMost = set(most, acrossLanes(fold.keep, get(most), max))
  const total = body(55)
  const foldSum = set(by, div(one, acrossLanes(total.keep, get(sum))))
  const row = [
    ...set(
      end,
      i32.add(get(scores), i32.shl(i32.add(i32.shrU(get(i), i32.const(2)), i32.const(1)), i32.const(4))),
    ),
    ...set(rowEnd, i32.add(get(scores), get(rowBytes))),
    ...set(last, i32x4.splat(get(i))),
    ...set(first, i32x4.splat(i32.sub(get(i), get(window)))),
    ...[set(most, LOWEST), again, doWhile(find, i32.ltU(get(p), get(end)))].flat(),
    ...[fold.code.flat(), foldMost].flat(),
    ...[set(sum, v128.splat(0)), again, doWhile(exponentials, i32.ltU(get(p), get(end)))].flat(),
    ...[total.code.flat(), foldSum].flat(),
    ...[set(p, get(scores)), doWhile(divide, i32.ltU(get(p), get(end)))].flat(),
    ...when(i32.ltU(get(p), get(rowEnd)), doWhile(clear, i32.ltU(get(p), get(rowEnd)))),
    ...[set(scores, get(rowEnd)), step(i, 1), step(rows, -1)].flat(),
  ]
  const begin = set(scale, v128.load32Splat(get(scalars), 0))
  return moduleOf(5, 4, LOCALS, [...begin, ...doWhile(row, get(rows))], limits)
}

/** `run(p, dp, rows, row bytes, scalars)`: dp of row i = p (dp - sum(p dp)) scale up to element i, and 0 beyond; scalars: scale. */
export function generateSoftmaxBackward(limits: Code): Uint8Array<ArrayBuffer> {
  const [p, dp, rows, rowBytes, scalars, i, a, b, end, rowEnd] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] as const
  const [scale, sum, along] = [10, 11, 12] as const
  const again = [...set(a, get(p)), ...set(b, get(dp))]
  const turn = [...step(a, 16), ...step(b, 16)]
  const find = [...set(sum, add(get(sum), mul(v128.load(get(a), 0), v128.load(get(b), 0)))), ...turn]
  const change = mul(mul(v128.load(get(a), 0), sub(v128.load(get(b), 0), get(along))), get(scale))
  const write = [...v128.store(get(b), change, 0), ...turn]
  const clear = [...v128.store(get(b), v128.splat(0), 0), ...step(b, 16)]
  const fold = body(20)
  const folded = set(along, acrossLanes(fold.keep, get(sum)))
  const row = [
    ...set(
      end,
      i32.add(get(dp), i32.shl(i32.add(i32.shrU(get(i), i32.const(2)), i32.const(1)), i32.const(4))),
    ),
    ...set(rowEnd, i32.add(get(dp), get(rowBytes))),
    ...[set(sum, v128.splat(0)), again, doWhile(find, i32.ltU(get(b), get(end)))].flat(),
    ...[fold.code.flat(), folded, again, doWhile(write, i32.ltU(get(b), get(end)))].flat(),
    ...when(i32.ltU(get(b), get(rowEnd)), doWhile(clear, i32.ltU(get(b), get(rowEnd)))),
    ...[set(dp, get(rowEnd)), set(p, i32.add(get(p), get(rowBytes))), step(i, 1), step(rows, -1)].flat(),
  ]
  const begin = set(scale, v128.load32Splat(get(scalars), 0))
  return moduleOf(5, 5, LOCALS, [...begin, ...doWhile(row, get(rows))], limits)
}

/**
 * `run(x, rows, turns, weights, stats)`: x = softmax(x) weight, row by row; the row's maximum and the sum of e^(x - maximum) to `stats`,
 * two F32 a row.
 */
export function generateWeightedSoftmax(limits: Code): Uint8Array<ArrayBuffer> {
  const [x, rows, turns, weights, stats, p, n] = [0, 1, 2, 3, 4, 5, 6] as const
  const [most, sum, by] = [7, 8, 9] as const
  const again = [...set(p, get(x)), ...set(n, get(turns))]
  const turn = [...step(p, 16), ...step(n, -1)]
  const find = [...set(most, max(get(most), v128.load(get(p), 0))), ...turn]
  const raise = body(10)
  const power = raise.keep(exponential(raise.keep, sub(v128.load(get(p), 0), get(most))))
  const exponentials = [
    ...raise.code.flat(),
    ...v128.store(get(p), power, 0),
    ...set(sum, add(get(sum), power)),
    ...turn,
  ]
  const write = [...v128.store(get(p), mul(v128.load(get(p), 0), get(by)), 0), ...turn]
  const fold = body(50)
  const foldMost = set(most, acrossLanes(fold.keep, get(most), max))
  const total = body(55)
  const foldSum = set(sum, acrossLanes(total.keep, get(sum)))
  const row = [
    ...[set(most, LOWEST), again, doWhile(find, get(n)), fold.code.flat(), foldMost].flat(),
    ...[set(sum, v128.splat(0)), again, doWhile(exponentials, get(n)), total.code.flat(), foldSum].flat(),
    ...v128.store32First(get(stats), get(most)),
    ...v128.store32First(get(stats), get(sum), 4),
    ...set(by, div(v128.load32Splat(get(weights), 0), get(sum))),
    ...[again, doWhile(write, get(n)), set(x, get(p))].flat(),
    ...[step(weights, 4), step(stats, 8), step(rows, -1)].flat(),
  ]
  return moduleOf(5, 2, LOCALS, doWhile(row, get(rows)), limits)
}

function negative(x: Code): Code {
  return v128.xor(x, v128.splat(0x80000000))
}
