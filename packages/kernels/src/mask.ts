import { ModelError } from '@polygraft/tensor'
import { generateMask, MASK_STEP } from './_mask-codegen.js'
import { philox, type Words } from './_philox.js'
import { createMemory, instantiate, type Memory, simdAvailable } from './_wasm-run.js'
import { keyOf } from './random.js'
import type { Implementation } from './reduce.js'

/** Elements per call of the loop; they stay in the first-level cache until they are copied. */
const CHUNK = 8 * 1024
const WORDS = 4
const WORD_VALUES = 2 ** 32
const ONE = 0x3f80 // BF16

/**
 * Elements [begin, begin + out.length / 2) of the endless mask (density, seed, name), stored as BF16: 1 where word i mod 4
 * of Philox4x32-10 at counter floor(i / 4), keyed as for `randomValues`, is below density * 2^32, else 0. Element i
 * derives from (seed, name, i) alone; where one mask has a 1, a mask of higher density has it as well.
 * @throws ModelError 'bad-density' unless 0 <= density <= 1; 'bad-seed' unless seed is a safe integer.
 */
export function randomMask(
  density: number,
  seed: number,
  name: string,
  begin: number,
  out: Uint8Array,
  implementation: Implementation = 'simd',
): void {
  if (!(density >= 0 && density <= 1))
    throw new ModelError({
      code: 'bad-density',
      message: 'The density of a mask is no probability',
      expected: '0 to 1',
      received: `${density}`,
    })
  const key = keyOf(seed, name)
  const limit = Math.ceil(density * WORD_VALUES) // a word is below it just where it is below the product
  const total = out.length / 2
  for (let done = 0; done < total; done += CHUNK) {
    const count = Math.min(CHUNK, total - done)
    const part = out.subarray(done * 2, (done + count) * 2)
    if (implementation === 'reference' || !fillSimd(key, limit, begin + done, part))
      fillPlain(key, limit, begin + done, part)
  }
}

/** The definition. */
function fillPlain(
  [key0, key1]: readonly [number, number],
  limit: number,
  begin: number,
  out: Uint8Array,
): void {
  const mask = new Uint16Array(out.length / 2)
  const words: Words = [0, 0, 0, 0]
  for (let i = 0, at = begin; i < mask.length; i++, at++) {
    if (i === 0 || at % WORDS === 0) {
      const block = Math.floor(at / WORDS)
      words[0] = block % WORD_VALUES
      words[1] = Math.floor(block / WORD_VALUES)
      words[2] = 0
      words[3] = 0
      philox(words, key0, key1)
    }
    mask[i] = words[at % WORDS]! < limit ? ONE : 0
  }
  out.set(new Uint8Array(mask.buffer))
}

let loop: { readonly memory: Memory; readonly run: (...args: number[]) => void } | undefined

/** The same by WebAssembly; false where it cannot: no SIMD, a limit of 2^32, block numbers that pass a multiple of 2^32. */
function fillSimd(
  [key0, key1]: readonly [number, number],
  limit: number,
  begin: number,
  out: Uint8Array,
): boolean {
  const block = Math.floor(begin / WORDS)
  const low = block % WORD_VALUES
  const skipped = begin % WORDS
  const turns = Math.ceil((skipped + out.length / 2) / MASK_STEP)
  if (!simdAvailable() || limit === WORD_VALUES || low + (turns * MASK_STEP) / WORDS > WORD_VALUES)
    return false
  loop ??= createLoop()
  loop.run(turns, low, Math.floor(block / WORD_VALUES), key0, key1, limit)
  out.set(new Uint8Array(loop.memory.buffer, skipped * 2, out.length))
  return true
}

function createLoop(): NonNullable<typeof loop> {
  const memory = createMemory((CHUNK + MASK_STEP + WORDS) * 2)!
  return { memory, run: instantiate('mask', generateMask, memory) }
}
