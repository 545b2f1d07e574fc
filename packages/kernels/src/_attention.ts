import { normalize } from './_decoder-operations.js'
import type { Machine } from './_machine.js'
import { PANEL } from './_matmul-codegen.js'
import { operation, shareOf } from './_operation.js'
import { K_BLOCK } from './matmul.js'

/*
 * Causal attention of grouped query heads over cached keys and values. For each key-value head and layer, both are laid out as packed
 * operands, so that scores and outputs are products like any other: keys [C / 8][D][8] (positions as columns), values
 * [D / 8][C][8] (positions as k); C positions of capacity, a multiple of 8. So a row's result depends on nothing but its own position.
 */

/** Queries of one head that are computed at a time. */
const BLOCK_ROWS = 32

/** Bytes of the keys, or of the values, of one head. */
const keyBytes = (capacity: number, headDim: number) => capacity * headDim * 4
const valueBytes = (capacity: number, headDim: number) => capacity * Math.ceil(headDim / PANEL) * PANEL * 4

/** Bytes of one layer's keys and values. */
export function cacheBytes(keyValueHeads: number, headDim: number, capacity: number): number {
  return keyValueHeads * (keyBytes(capacity, headDim) + valueBytes(capacity, headDim))
}

/** Bytes that each part of an `attend` over sequences of up to `length` positions needs for scores. */
export function scoreBytes(length: number, heads: number, keyValueHeads: number): number {
  return Math.max(BLOCK_ROWS, heads / keyValueHeads) * Math.ceil(length / PANEL) * PANEL * 4
}

/**
 * Rows [row, row + count) of q [T, heads * D], k and v [T, keyValueHeads * D], at positions from `begin` on: q and k are normalised by
 * head (weights F32 [D], or 0 for none) and rotated by cos and sin [T, rotated / 2]; k and v go into the cache.
 */
export const rotateAndStore = operation(
  [
    ...(['q', 'k', 'v', 'qNorm', 'kNorm', 'eps', 'cos', 'sin', 'rotated'] as const),
    ...(['cache', 'capacity', 'heads', 'keyValueHeads', 'headDim', 'row', 'count', 'begin'] as const),
  ],
  (machine, operands, part, parts) => {
    const { q, k, v, qNorm, kNorm, eps, cos, sin, rotated, heads, keyValueHeads, headDim } = operands
    const floats = machine.floats()
    const [first, end] = shareOf(operands.count, part, parts)
    for (let i = first; i < end; i++) {
      const row = operands.row + i
      const angles = (row * rotated) / 2
      const prepare = (head: number, weight: number) => {
        if (weight !== 0) normalize(floats, head, weight / 4, head, headDim, eps)
        rotate(floats, head, cos / 4 + angles, sin / 4 + angles, rotated)
      }
      for (let head = 0; head < heads; head++) prepare(q / 4 + (row * heads + head) * headDim, qNorm)
      for (let head = 0; head < keyValueHeads; head++) {
        const at = (row * keyValueHeads + head) * headDim
        prepare(k / 4 + at, kNorm)
        store(floats, k / 4 + at, v / 4 + at, head, operands.begin + i, operands)
      }
    }
  },
)

/** One head: elements i and i + rotated / 2 are turned together. */
function rotate(floats: Float32Array, head: number, cos: number, sin: number, rotated: number): void {
  const half = rotated / 2
  for (let i = 0; i < half; i++) {
    const [a, b] = [floats[head + i]!, floats[head + half + i]!]
    const [c, s] = [floats[cos + i]!, floats[sin + i]!]
    floats[head + i] = a * c - b * s
    floats[head + half + i] = b * c + a * s
  }
}

interface CachePlace {
  readonly cache: number
  readonly capacity: number
  readonly keyValueHeads: number
  readonly headDim: number
}

function keysOf({ cache, capacity, headDim }: CachePlace, head: number): number {
  return cache + head * keyBytes(capacity, headDim)
}

function valuesOf({ cache, capacity, keyValueHeads, headDim }: CachePlace, head: number): number {
  return cache + keyValueHeads * keyBytes(capacity, headDim) + head * valueBytes(capacity, headDim)
}

function store(
  floats: Float32Array,
  k: number,
  v: number,
  head: number,
  position: number,
  place: CachePlace,
): void {
  const { capacity, headDim } = place
  const column = position % PANEL
  const keys = keysOf(place, head) / 4 + (position - column) * headDim + column
  const values = valuesOf(place, head) / 4 + position * PANEL
  for (let i = 0; i < headDim; i++) {
    floats[keys + i * PANEL] = floats[k + i]!
    floats[values + Math.floor(i / PANEL) * capacity * PANEL + (i % PANEL)] = floats[v + i]!
  }
}

/**
 * out [T, heads * D] = attention of rows [row, row + count), at positions from `begin` on: softmax(scale q k^T) v over the last `window`
 * positions up to its own (0: all). Query head h uses key-value head floor(h keyValueHeads / heads). `scores`: scoreBytes for each part.
 */
export const attend = operation(
  [
    ...(['q', 'out', 'cache', 'capacity', 'heads', 'keyValueHeads', 'headDim'] as const),
    ...(['row', 'count', 'begin', 'scale', 'window', 'scores'] as const),
  ],
  (machine, operands, part, parts) => {
    const { heads, keyValueHeads, count } = operands
    const blocks = Math.ceil(count / BLOCK_ROWS)
    const scores = operands.scores + part * scoreBytes(operands.begin + count, heads, keyValueHeads)
    // Later blocks see more positions, so blocks are dealt out in turn.
    for (let item = part; item < blocks * keyValueHeads; item += parts) {
      const first = Math.floor(item / keyValueHeads) * BLOCK_ROWS
      const rows = Math.min(BLOCK_ROWS, count - first)
      attendBlock(machine, { ...operands, scores }, item % keyValueHeads, first, rows)
    }
  },
)

type AttendOperands = Parameters<typeof attend.run>[1]

/** Rows [first, first + rows) of one key-value head's group of query heads. */
function attendBlock(
  machine: Machine,
  operands: AttendOperands,
  head: number,
  first: number,
  rows: number,
): void {
  const { q, out, heads, keyValueHeads, headDim, row, begin, window, count } = operands
  const group = heads / keyValueHeads
  const width = heads * headDim
  const start = (row + first) * width + head * group * headDim
  const seen = begin + first + rows
  const oldest = window === 0 ? 0 : Math.max(0, begin + first - window + 1)
  const shared = { oldest: oldest - (oldest % K_BLOCK), length: Math.ceil(seen / PANEL) * PANEL }
  // One row: the heads of the group are its rows. More: head by head.
  const passes = count === 1 ? [0] : Array.from({ length: group }, (_, i) => i)
  for (const pass of passes) {
    const at = (start + pass * headDim) * 4
    const size = count === 1 ? group : rows
    const stride = count === 1 ? headDim : width
    const positionOf = (i: number) => begin + first + (count === 1 ? 0 : i)
    attendRows(machine, operands, { ...shared, head, size, stride, q: q + at, out: out + at, positionOf })
  }
}

interface RowsOfHead {
  readonly head: number
  readonly size: number
  readonly stride: number
  readonly q: number
  readonly out: number
  /** Positions before it are seen by no row. A multiple of K_BLOCK. */
  readonly oldest: number
  /** Positions from it on are seen by no row. A multiple of PANEL. */
  readonly length: number
  positionOf(row: number): number
}

function attendRows(machine: Machine, operands: AttendOperands, rows: RowsOfHead): void {
  const { headDim, capacity, scale, window, scores } = operands
  const { head, size, stride, oldest, length } = rows
  const columns = length - oldest
  machine.matmul.multiplyPacked({
    ...{ m: size, n: columns, k: headDim, a: rows.q, aStride: stride, dtype: 'F32', c: scores },
    b: keysOf(operands, head) + oldest * headDim * 4,
  })
  const floats = machine.floats()
  for (let i = 0; i < size; i++) {
    const position = rows.positionOf(i)
    const from = (window === 0 ? 0 : Math.max(0, position - window + 1)) - oldest
    const [low, high] = [Math.max(0, from), position + 1 - oldest]
    const [begin, end] = [low - (low % 4), Math.ceil(high / 4) * 4]
    const at = scores / 4 + i * columns
    floats
      .fill(Number.NEGATIVE_INFINITY, at + begin, at + low)
      .fill(Number.NEGATIVE_INFINITY, at + high, at + end)
    machine.vectors.softmax(scores + (i * columns + begin) * 4, end - begin, scale)
    floats.fill(0, at, at + begin).fill(0, at + end, at + columns)
  }
  machine.matmul.multiplyPacked({
    ...{ m: size, n: headDim, k: columns, a: scores, dtype: 'F32', c: rows.out, cStride: stride },
    b: valuesOf(operands, head) + oldest * PANEL * 4,
    panelBytes: capacity * PANEL * 4,
  })
}

/** The first `count` positions of one layer's cache into another of other capacity. */
export const copyCache = operation(
  ['from', 'fromCapacity', 'to', 'toCapacity', 'keyValueHeads', 'headDim', 'count'],
  (machine, { from, fromCapacity, to, toCapacity, keyValueHeads, headDim, count }, part, parts) => {
    const bytes = machine.bytes()
    const copy = (source: number, target: number, size: number) =>
      bytes.copyWithin(target, source, source + size)
    const source = { cache: from, capacity: fromCapacity, keyValueHeads, headDim }
    const target = { cache: to, capacity: toCapacity, keyValueHeads, headDim }
    const [begin, end] = shareOf(keyValueHeads, part, parts)
    for (let head = begin; head < end; head++) {
      const whole = Math.ceil(count / PANEL) * PANEL
      copy(keysOf(source, head), keysOf(target, head), whole * headDim * 4)
      for (let panel = 0; panel < Math.ceil(headDim / PANEL); panel++) {
        const [a, b] = [fromCapacity, toCapacity].map((capacity) => panel * capacity * PANEL * 4) as [
          number,
          number,
        ]
        copy(valuesOf(source, head) + a, valuesOf(target, head) + b, count * PANEL * 4)
      }
    }
  },
)
