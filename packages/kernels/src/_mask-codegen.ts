import { M0, M1, ROUNDS, W0, W1 } from './_philox.js'
import { type Code, doWhile, get, i32, i32x4, i64x2, moduleOf, set, shuffle32, v128 } from './_wasm.js'

/** Elements per turn of the loop: four blocks of Philox, a lane each. */
export const MASK_STEP = 16

const ONES_LOW = 0x3f80 // 1 in BF16
const ONES_HIGH = 0x3f800000

// Parameters of `run`, then the i32 locals.
const [TURNS, LOW, HIGH, KEY0, KEY1, LIMIT, OFFSET, END] = [0, 1, 2, 3, 4, 5, 6, 7] as const
const FIRST_V128 = 8

/**
 * `run(turns, low and high word of the first block's number, the key's words, limit)`: from byte 0 of the memory on, for
 * each word of the random blocks 1 as BF16 where it is below `limit`, else 0. The blocks' low words must not wrap.
 */
export function generateMask(): Uint8Array<ArrayBuffer> {
  let locals = 0
  const before: Code[] = []
  const turn: Code[] = []
  const keep = (value: Code, into = turn): Code => {
    const local = FIRST_V128 + locals++
    into.push(set(local, value))
    return get(local)
  }
  const splat = (value: Code) => keep(i32x4.splat(value), before)
  const keys = Array.from({ length: ROUNDS }, (_, round) => [
    splat(i32.add(get(KEY0), i32.const(Math.imul(W0, round)))),
    splat(i32.add(get(KEY1), i32.const(Math.imul(W1, round)))),
  ])
  const high = splat(get(HIGH))
  const limit = splat(get(LIMIT))
  const numbers = FIRST_V128 + locals++
  before.push(set(numbers, i32x4.add(i32x4.splat(get(LOW)), v128.const32([0, 1, 2, 3]))))

  /** High and low words of the lanes' products with `factor`. */
  function multiply(lanes: Code, factor: number): [Code, Code] {
    const first = keep(i64x2.extmulLowU(lanes, v128.splat(factor)))
    const second = keep(i64x2.extmulHighU(lanes, v128.splat(factor)))
    return [keep(shuffle32(first, second, [1, 3, 5, 7])), keep(shuffle32(first, second, [0, 2, 4, 6]))]
  }

  const zero = v128.splat(0)
  let words: [Code, Code, Code, Code] = [get(numbers), high, zero, zero]
  for (const [round, [key0, key1]] of keys.entries()) {
    const [high0, low0] = multiply(words[0], M0)
    const [high1, low1] = round === 0 ? [zero, zero] : multiply(words[2], M1)
    words = [
      keep(v128.xor(v128.xor(high1, words[1]), key0!)),
      low1,
      keep(v128.xor(v128.xor(high0, words[3]), key1!)),
      low0,
    ]
  }
  // Word w of each lane's block is that block's element w: pairs of elements first, then the pairs in turn.
  const ones = (w: number, bits: number) => v128.and(i32x4.ltU(words[w]!, limit), v128.splat(bits))
  const first = keep(v128.or(ones(0, ONES_LOW), ones(1, ONES_HIGH)))
  const second = keep(v128.or(ones(2, ONES_LOW), ones(3, ONES_HIGH)))
  const body = [
    ...before.flat(),
    ...set(END, i32.shl(get(TURNS), i32.const(5))), // MASK_STEP * 2 bytes a turn
    ...doWhile(
      [
        ...turn.flat(),
        ...v128.store(get(OFFSET), shuffle32(first, second, [0, 4, 1, 5]), 0),
        ...v128.store(get(OFFSET), shuffle32(first, second, [2, 6, 3, 7]), 16),
        ...set(numbers, i32x4.add(get(numbers), v128.splat(4))),
        ...set(OFFSET, i32.add(get(OFFSET), i32.const(MASK_STEP * 2))),
      ],
      i32.ltU(get(OFFSET), get(END)),
    ),
  ]
  return moduleOf(6, 2, locals, body)
}
