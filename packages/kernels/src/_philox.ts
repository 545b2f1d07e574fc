/** Four 32-bit words. */
export type Words = [number, number, number, number]

export const ROUNDS = 10
export const M0 = 0xd2511f53
export const M1 = 0xcd9e8d57
export const W0 = 0x9e3779b9
export const W1 = 0xbb67ae85

/**
 * Philox4x32-10: four random words from a 128-bit counter and a 64-bit key, with no state
 * (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4).
 * Replaces the counter in `words` by the random words, each as an unsigned number.
 */
export function philox(words: Words, key0: number, key1: number): void {
  let c0 = words[0]
  let c1 = words[1]
  let c2 = words[2]
  let c3 = words[3]
  let k0 = key0
  let k1 = key1
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = mulHigh(M0, c0)
    const high1 = mulHigh(M1, c2)
    const low0 = Math.imul(M0, c0)
    const low1 = Math.imul(M1, c2)
    c0 = high1 ^ c1 ^ k0
    c1 = low1
    c2 = high0 ^ c3 ^ k1
    c3 = low0
    k0 = (k0 + W0) | 0
    k1 = (k1 + W1) | 0
  }
  words[0] = c0 >>> 0
  words[1] = c1 >>> 0
  words[2] = c2 >>> 0
  words[3] = c3 >>> 0
}

/** High 32 bits of the 64-bit product of two unsigned words. */
function mulHigh(a: number, b: number): number {
  const aHigh = a >>> 16
  const aLow = a & 0xffff
  const bHigh = b >>> 16
  const bLow = b & 0xffff
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16) // < 2^32
  const carry = aLow * bHigh + (middle & 0xffff) // < 2^32
  return (aHigh * bHigh + (middle >>> 16) + (carry >>> 16)) | 0
}
