import { ModelError } from '@polygraft/tensor'
import { normalPair } from './_normal.js'
import { philox, type Words } from './_philox.js'
import { xxh64 } from './_xxh64.js'

export type Distribution = 'normal' | 'uniform'

const WORDS = 4

/**
 * Elements [begin, begin + out.length) of the endless random tensor (distribution, scale, seed, name), as F32. Element i
 * derives from (seed, name, i) alone, so tiles, threads and platforms do not change it: word i mod 4 of Philox4x32-10
 * at counter floor(i / 4), keyed by XXH64 of the name's UTF-8 with the seed.
 *
 * normal: mean 0, standard deviation `scale`, by Box-Muller on neighbouring words, rounded once to F32.
 * uniform: [-scale, scale), in steps of scale * 2^-23.
 * @throws ModelError 'bad-seed' unless seed is a safe integer.
 */
export function randomValues(
  distribution: Distribution,
  scale: number,
  seed: number,
  name: string,
  begin: number,
  out: Float32Array,
): void {
  const [key0, key1] = keyOf(seed, name)
  const words: Words = [0, 0, 0, 0]
  const draws = new Float64Array(WORDS)
  for (let at = begin - (begin % WORDS); at < begin + out.length; at += WORDS) {
    const block = at / WORDS
    words[0] = block >>> 0
    words[1] = Math.floor(block / 0x100000000)
    words[2] = 0
    words[3] = 0
    philox(words, key0, key1)
    if (distribution === 'normal') normalDraws(words, draws)
    else for (let i = 0; i < WORDS; i++) draws[i] = (words[i]! >>> 8) / 0x800000 - 1
    const first = Math.max(begin - at, 0)
    const last = Math.min(begin + out.length - at, WORDS)
    for (let i = first; i < last; i++) out[at + i - begin] = scale * draws[i]!
  }
}

const pair = new Float64Array(2)

function normalDraws(words: Words, draws: Float64Array): void {
  for (let i = 0; i < WORDS; i += 2) {
    normalPair(words[i]!, words[i + 1]!, pair)
    draws[i] = pair[0]!
    draws[i + 1] = pair[1]!
  }
}

/**
 * Philox's key for draws named `name`.
 * @throws ModelError 'bad-seed' unless seed is a safe integer.
 */
export function keyOf(seed: number, name: string): [number, number] {
  if (!Number.isSafeInteger(seed))
    throw new ModelError({
      code: 'bad-seed',
      message: 'The seed is not an integer that a number holds exactly',
      expected: 'an integer between -(2^53 - 1) and 2^53 - 1',
      received: `${seed}`,
    })
  const hash = xxh64(new TextEncoder().encode(name), BigInt(seed))
  return [Number(hash & 0xffffffffn), Number(hash >> 32n)]
}
