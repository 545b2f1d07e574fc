const P1 = 0x9e3779b185ebca87n
const P2 = 0xc2b2ae3d27d4eb4fn
const P3 = 0x165667b19e3779f9n
const P4 = 0x85ebca77c2b2ae63n
const P5 = 0x27d4eb2f165667c5n

const wrap = (x: bigint) => BigInt.asUintN(64, x)
const rotate = (x: bigint, by: bigint) => wrap(x << by) | (x >> (64n - by))
const round = (acc: bigint, lane: bigint) => wrap(rotate(wrap(acc + lane * P2), 31n) * P1)
const merge = (hash: bigint, acc: bigint) => wrap((hash ^ round(0n, acc)) * P1 + P4)

/** XXH64 (Y. Collet, xxHash specification 0.1.1). For short keys: one hash of a tensor's name takes microseconds. */
export function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const s = wrap(seed)
  let at = 0
  let hash = wrap(s + P5)
  if (bytes.length >= 32) {
    const acc = [wrap(s + P1 + P2), wrap(s + P2), s, wrap(s - P1)]
    for (; at + 32 <= bytes.length; at += 32)
      for (let i = 0; i < 4; i++) acc[i] = round(acc[i]!, view.getBigUint64(at + i * 8, true))
    const [a, b, c, d] = acc as [bigint, bigint, bigint, bigint]
    hash = acc.reduce(merge, wrap(rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n)))
  }
  hash = wrap(hash + BigInt(bytes.length))
  for (; at + 8 <= bytes.length; at += 8)
    hash = wrap(rotate(hash ^ round(0n, view.getBigUint64(at, true)), 27n) * P1 + P4)
  if (at + 4 <= bytes.length) {
    hash = wrap(rotate(hash ^ wrap(BigInt(view.getUint32(at, true)) * P1), 23n) * P2 + P3)
    at += 4
  }
  for (; at < bytes.length; at++) hash = wrap(rotate(hash ^ wrap(BigInt(bytes[at]!) * P5), 11n) * P1)
  hash = wrap((hash ^ (hash >> 33n)) * P2)
  hash = wrap((hash ^ (hash >> 29n)) * P3)
  return hash ^ (hash >> 32n)
}
