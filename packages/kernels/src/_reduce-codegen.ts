import type { FloatDType } from '@polygraft/tensor'
import { decodeBf16, decodeF16 } from './_lanes.js'
import { type Code, doWhile, f32x4, f64x2, get, i32, i32x4, moduleOf, set, shuffle32, v128 } from './_wasm.js'

/*
 * Reductions as one WebAssembly SIMD loop. Eight elements a turn, as the groups of even and of odd index (`_lanes.ts`); of
 * each group's four values the first two (elements 0 and 2, or 1 and 3) are added before the last two (4 and 6, 5 and 7) to
 * the same accumulator. So lane i mod 4 gets element i, in order of i: what the reference does.
 */

/** Elements per turn. */
export const REDUCE_STEP = 8

/** An accumulator in memory, 16 bytes each, in order; lanes of F64 sums: elements 0 and 2 mod 4, then 1 and 3 mod 4. */
export const PAIR_SLOTS = {
  a2: 0,
  b2: 2,
  dot: 4,
  delta2: 6,
  maxAbsDelta: 8,
  changed: 9,
  finite: 10,
  end: 11,
} as const
export const STATISTICS_SLOTS = {
  sum: 0,
  abs: 2,
  squares: 4,
  min: 6,
  max: 7,
  zeros: 8,
  finite: 9,
  end: 10,
} as const

/** The products follow, two slots each. */
export const GRAM_SLOTS = { finite: 0, products: 1 } as const

/** A loop in the making. Locals: parameters `turns` and the tiles' addresses, the turns left, then v128. */
interface Loop {
  readonly params: number
  readonly slots: number
  readonly before: Code[]
  readonly turn: Code[]
  temporaries: number
}

/** `run(turns, address of a, address of b)`: at least one turn; leaves PAIR_SLOTS from byte 0. */
export function generatePairReduction(dtypes: readonly [FloatDType, FloatDType]): Uint8Array<ArrayBuffer> {
  const loop = createLoop(2, PAIR_SLOTS.end)
  const tiles = dtypes.map((dtype, i) => loadGroups(loop, 1 + i, dtype))
  for (const group of [0, 1]) {
    const [a, b] = tiles.map((groups) => groups[group]!) as [Code, Code]
    const finite = keep(loop, isZero(f32x4.add(f32x4.sub(a, a), f32x4.sub(b, b))))
    const x = keep(loop, v128.and(a, finite))
    const y = keep(loop, v128.and(b, finite))
    accumulate(loop, PAIR_SLOTS.finite, i32x4.sub, finite)
    accumulate(loop, PAIR_SLOTS.changed, i32x4.sub, f32x4.ne(x, y))
    for (const half of [0, 1]) {
      const wideX = keep(loop, promote(x, half))
      const wideY = keep(loop, promote(y, half))
      const delta = keep(loop, f64x2.sub(wideY, wideX))
      accumulate(loop, PAIR_SLOTS.a2 + group, f64x2.add, f64x2.mul(wideX, wideX))
      accumulate(loop, PAIR_SLOTS.b2 + group, f64x2.add, f64x2.mul(wideY, wideY))
      accumulate(loop, PAIR_SLOTS.dot + group, f64x2.add, f64x2.mul(wideX, wideY))
      accumulate(loop, PAIR_SLOTS.delta2 + group, f64x2.add, f64x2.mul(delta, delta))
      accumulate(loop, PAIR_SLOTS.maxAbsDelta, f64x2.pmax, f64x2.abs(delta))
    }
  }
  return assemble(loop, dtypes)
}

/** `run(turns, address)`: at least one turn; leaves STATISTICS_SLOTS from byte 0. */
export function generateStatistics(dtype: FloatDType): Uint8Array<ArrayBuffer> {
  const loop = createLoop(1, STATISTICS_SLOTS.end)
  const infinity = (sign: number) => v128.splat((0x7f800000 | sign) >>> 0)
  loop.before.push(set(slot(loop, STATISTICS_SLOTS.min), infinity(0)))
  loop.before.push(set(slot(loop, STATISTICS_SLOTS.max), infinity(0x80000000)))
  for (const [group, value] of loadGroups(loop, 1, dtype).entries()) {
    const finite = keep(loop, isZero(f32x4.sub(value, value)))
    const x = keep(loop, v128.and(value, finite))
    accumulate(loop, STATISTICS_SLOTS.finite, i32x4.sub, finite)
    accumulate(loop, STATISTICS_SLOTS.zeros, i32x4.sub, v128.and(isZero(x), finite))
    accumulate(loop, STATISTICS_SLOTS.min, f32x4.min, v128.select(x, infinity(0), finite))
    accumulate(loop, STATISTICS_SLOTS.max, f32x4.max, v128.select(x, infinity(0x80000000), finite))
    for (const half of [0, 1]) {
      const wide = keep(loop, promote(x, half))
      accumulate(loop, STATISTICS_SLOTS.sum + group, f64x2.add, wide)
      accumulate(loop, STATISTICS_SLOTS.abs + group, f64x2.add, f64x2.abs(wide))
      accumulate(loop, STATISTICS_SLOTS.squares + group, f64x2.add, f64x2.mul(wide, wide))
    }
  }
  return assemble(loop, [dtype])
}

/** `run(turns, address of each)`: at least one turn; leaves GRAM_SLOTS from byte 0. */
export function generateGram(dtypes: readonly FloatDType[]): Uint8Array<ArrayBuffer> {
  const pairs = (dtypes.length * (dtypes.length + 1)) / 2
  const loop = createLoop(dtypes.length, GRAM_SLOTS.products + 2 * pairs)
  const tiles = dtypes.map((dtype, i) => loadGroups(loop, 1 + i, dtype))
  for (const group of [0, 1]) {
    const values = tiles.map((groups) => groups[group]!)
    const infinite = values
      .map((value) => f32x4.sub(value, value))
      .reduce((sum, each) => keep(loop, f32x4.add(sum, each)))
    const finite = keep(loop, isZero(infinite))
    accumulate(loop, GRAM_SLOTS.finite, i32x4.sub, finite)
    const masked = values.map((value) => keep(loop, v128.and(value, finite)))
    for (const half of [0, 1]) {
      const wide = masked.map((value) => keep(loop, promote(value, half)))
      let at = GRAM_SLOTS.products + group
      for (let a = 0; a < wide.length; a++)
        for (let b = a; b < wide.length; b++, at += 2)
          accumulate(loop, at, f64x2.add, f64x2.mul(wide[a]!, wide[b]!))
    }
  }
  return assemble(loop, dtypes)
}

function createLoop(tiles: number, slots: number): Loop {
  return { params: 1 + tiles, slots, before: [], turn: [], temporaries: 0 }
}

/** The local of an accumulator. */
function slot(loop: Loop, index: number): number {
  return loop.params + index
}

function accumulate(loop: Loop, index: number, op: (sum: Code, value: Code) => Code, value: Code): void {
  loop.turn.push(set(slot(loop, index), op(get(slot(loop, index)), value)))
}

function keep(loop: Loop, value: Code): Code {
  const local = slot(loop, loop.slots + loop.temporaries++)
  loop.turn.push(set(local, value))
  return get(local)
}

/** The turn's elements of the tile at the address in `param`: the four of even index, and the four of odd. */
function loadGroups(loop: Loop, param: number, dtype: FloatDType): readonly Code[] {
  const words = keep(loop, v128.load(get(param), 0))
  if (dtype === 'BF16') return [0, 1].map((group) => keep(loop, decodeBf16(words, group)))
  if (dtype === 'F16')
    return [0, 1].map((group) =>
      keep(
        loop,
        decodeF16((code) => keep(loop, code), words, group),
      ),
    )
  const second = keep(loop, v128.load(get(param), 16))
  return [0, 1].map((odd) => keep(loop, shuffle32(words, second, [odd, odd + 2, odd + 4, odd + 6])))
}

/** The lower or upper two lanes as F64. */
function promote(value: Code, half: number): Code {
  return f64x2.promoteLow(half === 0 ? value : shuffle32(value, value, [2, 3, 2, 3]))
}

function isZero(value: Code): Code {
  return f32x4.eq(value, v128.splat(0))
}

function assemble(loop: Loop, dtypes: readonly FloatDType[]): Uint8Array<ArrayBuffer> {
  const advance = dtypes.map((dtype, i) =>
    set(1 + i, i32.add(get(1 + i), i32.const(REDUCE_STEP * (dtype === 'F32' ? 4 : 2)))),
  )
  // Counts `turns` itself down to zero.
  const turn = [...loop.turn.flat(), ...advance.flat(), ...set(0, i32.add(get(0), i32.const(-1)))]
  const stores = Array.from({ length: loop.slots }, (_, i) =>
    v128.store(i32.const(0), get(slot(loop, i)), i * 16),
  )
  const body = [...loop.before.flat(), ...doWhile(turn, get(0)), ...stores.flat()]
  return moduleOf(loop.params, 0, loop.slots + loop.temporaries, body)
}
