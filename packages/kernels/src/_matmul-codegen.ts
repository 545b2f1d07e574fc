import { decodeBf16, decodeF16 } from './_lanes.js'
import { type Code, doWhile, f32x4, get, i32, moduleOf, set, shuffle32, v128, when } from './_wasm.js'

/*
 * Products of packed operands. A tile of `rows` rows of a is packed [K, rows], a panel of PANEL columns of b [K, PANEL]; every
 * element of the result has an accumulator of its own, to which k adds in order. One k a turn: with more of them V8 spills
 * accumulators (measured: 60 GFLOP/s with one, 38 with two).
 */

/** Columns of a panel of b. */
export const PANEL = 8
/** Rows of a tile of a. */
export const TILE = 4
/** Panels that the product with one row goes over together, so that additions need not wait for one another. */
export const ROW_PANELS = 4

/** How the elements of a packed panel are stored. */
export type PanelDType = 'F32' | 'BF16' | 'F16'

const VECTORS = PANEL / 4

/** Bytes of one k of a panel. */
export function panelStep(dtype: PanelDType): number {
  return PANEL * (dtype === 'F32' ? 4 : 2)
}

/**
 * `run(a, b, c, bytes from row to row of c, K, tiles, panels, bytes from panel to panel of b, whether to add to c, scratch)`: for
 * every panel all tiles. Where it is stored as BF16 or F16, a panel is first decoded to `scratch`, F32 [K, PANEL]. Counts are at
 * least 1.
 */
export function generateTiles(rows: number, dtype: PanelDType, limits: Code): Uint8Array<ArrayBuffer> {
  const [a, b, c, rowBytes, k, tiles, panels, panelBytes, adds, scratch] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
  ] as const
  const [pa, pb, end, row, tile, values] = [10, 11, 12, 13, 14, 15] as const
  const cells = Array.from({ length: rows * VECTORS }, (_, i) => i)
  const sum = (cell: number) => 16 + cell
  const column = (v: number) => sum(cells.length + v)
  const factor = column(VECTORS)
  const turn = [
    ...vectors((v) => set(column(v), v128.load(get(pb), v * 16))),
    ...cells.flatMap((cell) => {
      const isFirst = cell % VECTORS === 0
      const product = f32x4.mul(get(factor), get(column(cell % VECTORS)))
      return [
        ...(isFirst ? set(factor, v128.load32Splat(get(pa), (cell / VECTORS) * 4)) : []),
        ...set(sum(cell), f32x4.add(get(sum(cell)), product)),
      ]
    }),
    ...step(pa, rows * 4),
    ...step(pb, PANEL * 4),
  ]
  /** One instruction for each cell, with `row` at its row of c. */
  const overCells = (each: (cell: number, at: number) => Code) =>
    cells.flatMap((cell) => [
      ...each(cell, (cell % VECTORS) * 16),
      ...(cell % VECTORS === VECTORS - 1 ? set(row, i32.add(get(row), get(rowBytes))) : []),
    ])
  const addStored = [
    ...overCells((cell, at) => set(sum(cell), f32x4.add(v128.load(get(row), at), get(sum(cell))))),
    ...set(row, i32.sub(get(row), i32.mul(get(rowBytes), i32.const(rows)))),
  ]
  const eachTile = [
    ...cells.flatMap((cell) => set(sum(cell), v128.splat(0))),
    ...set(pb, get(values)),
    ...doWhile(turn, i32.ltU(get(pb), get(end))),
    ...when(get(adds), addStored),
    ...overCells((cell, at) => v128.store(get(row), get(sum(cell)), at)),
    ...step(tile, -1),
  ]
  const decoded =
    dtype === 'F32'
      ? []
      : decodePanel(dtype, { from: b, to: scratch, k, source: pa, target: pb, v128s: factor + 1 })
  const eachPanel = [
    ...decoded,
    ...set(values, get(dtype === 'F32' ? b : scratch)),
    ...set(end, i32.add(get(values), i32.mul(get(k), i32.const(PANEL * 4)))),
    ...set(pa, get(a)),
    ...set(row, get(c)),
    ...set(tile, get(tiles)),
    ...doWhile(eachTile, get(tile)),
    ...set(b, i32.add(get(b), get(panelBytes))),
    ...step(c, PANEL * 4),
    ...step(panels, -1),
  ]
  const body = doWhile(eachPanel, get(panels))
  return moduleOf(10, 6, cells.length + VECTORS + 1 + DECODE_LOCALS, body, limits)
}

/**
 * `run(a, b, c, K, groups, bytes from panel to panel of b, whether to add to c)`: one row, ROW_PANELS panels at a time, read as they are
 * stored. Counts are at least 1.
 */
export function generateRow(dtype: PanelDType, limits: Code): Uint8Array<ArrayBuffer> {
  const [a, b, c, k, groups, panelBytes, adds] = [0, 1, 2, 3, 4, 5, 6] as const
  const [pa, end] = [7, 8] as const
  const pb = (panel: number) => 9 + panel
  const cells = Array.from({ length: ROW_PANELS * VECTORS }, (_, i) => i)
  const sum = (cell: number) => 9 + ROW_PANELS + cell
  const factor = sum(cells.length)
  const turn: Code[] = [set(factor, v128.load32Splat(get(pa), 0))]
  for (const [panel, columns] of cells
    .slice(0, ROW_PANELS)
    .map((i) => [i, loadColumns(dtype, pb(i), factor + 1)] as const)) {
    turn.push(columns.code)
    for (const [v, value] of columns.values.entries()) {
      const cell = panel * VECTORS + v
      turn.push(set(sum(cell), f32x4.add(get(sum(cell)), f32x4.mul(get(factor), value))))
    }
    turn.push(step(pb(panel), panelStep(dtype)))
  }
  turn.push(step(pa, 4))
  const panels = cells.slice(0, ROW_PANELS)
  const eachGroup = [
    ...cells.flatMap((cell) => set(sum(cell), v128.splat(0))),
    ...panels.flatMap((i) => set(pb(i), i32.add(get(b), i32.mul(get(panelBytes), i32.const(i))))),
    ...set(pa, get(a)),
    ...doWhile(turn.flat(), i32.ltU(get(pa), get(end))),
    ...when(
      get(adds),
      cells.flatMap((cell) => set(sum(cell), f32x4.add(v128.load(get(c), cell * 16), get(sum(cell))))),
    ),
    ...cells.flatMap((cell) => v128.store(get(c), get(sum(cell)), cell * 16)),
    ...set(b, i32.add(get(b), i32.mul(get(panelBytes), i32.const(ROW_PANELS)))),
    ...step(c, ROW_PANELS * PANEL * 4),
    ...step(groups, -1),
  ]
  const body = [
    ...set(end, i32.add(get(a), i32.shl(get(k), i32.const(2)))),
    ...doWhile(eachGroup, get(groups)),
  ]
  return moduleOf(7, 2 + ROW_PANELS, cells.length + 1 + DECODE_LOCALS, body, limits)
}

/*
 * Packing, of `groups` groups of lanes a call. All take `(source, its bytes from lane to lane or from step to step, target, bytes from step
 * to step there, turns, groups, bytes from group to group of the source, and of the target)`. Counts are at least 1.
 */
const [SOURCE, SOURCE_BYTES, TARGET, TARGET_BYTES, TURNS, GROUPS, SOURCE_GROUP, TARGET_GROUP] = [
  0, 1, 2, 3, 4, 5, 6, 7,
] as const
const [TO, N] = [8, 9] as const

/** Runs `begin`, then `turn` TURNS times, for every group. */
function packingOf(begin: Code, turn: Code, pointers: number, v128s: number, limits: Code) {
  const group = [
    ...[set(TO, get(TARGET)), set(N, get(TURNS)), begin].flat(),
    ...doWhile([...turn, ...step(N, -1)], get(N)),
    ...set(SOURCE, i32.add(get(SOURCE), get(SOURCE_GROUP))),
    ...set(TARGET, i32.add(get(TARGET), get(TARGET_GROUP))),
    ...step(GROUPS, -1),
  ]
  return moduleOf(8, 2 + pointers, v128s, doWhile(group, get(GROUPS)), limits)
}

/** LANES lanes whose elements lie one after the other: element (lane, i) to lane `lane` of step i, LANES steps a turn. */
export function generateTranspose(limits: Code): Uint8Array<ArrayBuffer> {
  const pointer = (lane: number) => 10 + lane
  const row = (lane: number) => 10 + LANES + lane
  const half = (i: number) => 10 + 2 * LANES + i
  const lanes = Array.from({ length: LANES }, (_, i) => i)
  const turn = [
    ...lanes.flatMap((lane) => set(row(lane), v128.load(get(pointer(lane)), 0))),
    ...set(half(0), shuffle32(get(row(0)), get(row(1)), [0, 4, 1, 5])),
    ...set(half(1), shuffle32(get(row(2)), get(row(3)), [0, 4, 1, 5])),
    ...set(half(2), shuffle32(get(row(0)), get(row(1)), [2, 6, 3, 7])),
    ...set(half(3), shuffle32(get(row(2)), get(row(3)), [2, 6, 3, 7])),
    ...lanes.flatMap((i) => {
      const from = i < 2 ? [half(0), half(1)] : [half(2), half(3)]
      const column = shuffle32(get(from[0]!), get(from[1]!), i % 2 ? [2, 3, 6, 7] : [0, 1, 4, 5])
      return [...v128.store(get(TO), column, 0), ...set(TO, i32.add(get(TO), get(TARGET_BYTES)))]
    }),
    ...lanes.flatMap((lane) => step(pointer(lane), LANES * 4)),
  ]
  const begin = lanes.flatMap((i) =>
    set(pointer(i), i32.add(get(SOURCE), i32.mul(get(SOURCE_BYTES), i32.const(i)))),
  )
  return packingOf(begin, turn, LANES, 2 * LANES, limits)
}

/** LANES lanes that lie side by side in both, a step a turn. */
export function generateCopy(limits: Code): Uint8Array<ArrayBuffer> {
  const turn = v128.store(get(TO), v128.load(get(10), 0), 0)
  return packingOf(set(10, get(SOURCE)), [...turn, ...onward], 1, 0, limits)
}

/** One lane, a step a turn. */
export function generateLane(limits: Code): Uint8Array<ArrayBuffer> {
  const turn = i32.store(get(TO), i32.load(get(10)))
  return packingOf(set(10, get(SOURCE)), [...turn, ...onward], 1, 0, limits)
}

/** One step on, with the source's pointer in local 10. */
const onward: Code = [
  ...set(10, i32.add(get(10), get(SOURCE_BYTES))),
  ...set(TO, i32.add(get(TO), get(TARGET_BYTES))),
]

/** Lanes that packing moves at once. */
export const LANES = 4
/** Decoding F16 keeps the words, and two values of each group. */
const DECODE_LOCALS = 5

/**
 * One panel to F32: `from`, `to` and `k` are locals that stay; `source`, `target` and
 * the v128 locals from `v128s` on are its own.
 */
function decodePanel(
  dtype: 'BF16' | 'F16',
  {
    from,
    to,
    k,
    source,
    target,
    v128s,
  }: Readonly<Record<'from' | 'to' | 'k' | 'source' | 'target' | 'v128s', number>>,
): Code {
  const { code, values } = loadColumns(dtype, source, v128s)
  const turn = [
    ...code,
    ...values.flatMap((value, v) => v128.store(get(target), value, v * 16)),
    ...step(source, panelStep(dtype)),
    ...step(target, PANEL * 4),
  ]
  const begin = [...set(source, get(from)), ...set(target, get(to))]
  return [
    ...begin,
    ...doWhile(turn, i32.ltU(get(target), i32.add(get(to), i32.mul(get(k), i32.const(PANEL * 4))))),
  ]
}

interface Columns {
  /** Code that must run first. */
  readonly code: Code
  /** VECTORS vectors of F32. */
  readonly values: readonly Code[]
}

/** The columns of one k at the address in `pointer`. Stored in 16 bits, words go in pairs: columns i and VECTORS * 2 + i. */
function loadColumns(dtype: PanelDType, pointer: number, v128s: number): Columns {
  if (dtype === 'F32') return { code: [], values: [0, 1].map((v) => v128.load(get(pointer), v * 16)) }
  const code: Code[] = [set(v128s, v128.load(get(pointer), 0))]
  let next = v128s + 1
  const keep = (value: Code) => {
    code.push(set(next, value))
    return get(next++)
  }
  const words = get(v128s)
  const values = [0, 1].map((v) => (dtype === 'BF16' ? decodeBf16(words, v) : decodeF16(keep, words, v)))
  return { code: code.flat(), values }
}

function step(local: number, by: number): Code {
  return set(local, i32.add(get(local), i32.const(by)))
}

function vectors(each: (v: number) => Code): Code {
  return [0, 1].flatMap(each)
}
