import {
  generateCopy,
  generateLane,
  generateRow,
  generateTiles,
  generateTranspose,
  LANES,
  PANEL,
  type PanelDType,
  panelStep,
  ROW_PANELS,
  TILE,
} from './_matmul-codegen.js'
import { instantiateOver, type KernelMemory } from './_wasm-run.js'

/*
 * Letters: c [M, N], K the dimension that is summed over. Addresses are bytes from the memory's start, multiples of 4; strides are
 * elements from row to row.
 */

/** k of a block. Sums go over a block in order, and blocks are added in order: a constant, so that results do not depend on the split. */
export const K_BLOCK = 256
/** Rows of a that are packed at once: with K_BLOCK of k they stay in the second-level cache. */
const M_BLOCK = 128
/** Panels of b that are packed at once. */
const PANEL_BLOCK = 64

const A_BYTES = M_BLOCK * K_BLOCK * 4
const B_BYTES = PANEL_BLOCK * PANEL * K_BLOCK * 4
const DECODED_BYTES = PANEL * K_BLOCK * 4
const EDGE_BYTES = M_BLOCK * PANEL * 4

/** Working space of one thread. Unit: bytes. */
export const MATMUL_SCRATCH_BYTES = A_BYTES + B_BYTES + DECODED_BYTES + EDGE_BYTES

/** c = or c += a b^T (`NT`: a [M, K], b [N, K]), a b (`NN`: b [K, N]), a^T b (`TN`: a [K, M], b [K, N]); all F32. */
export interface Product {
  readonly form: 'NT' | 'NN' | 'TN'
  readonly m: number
  readonly n: number
  readonly k: number
  readonly a: number
  readonly b: number
  readonly c: number
  /** Strides; the rows follow one another where they are left out. */
  readonly aStride?: number
  readonly bStride?: number
  readonly cStride?: number
  /** Whether the product is added to what c holds. */
  readonly adds?: boolean
}

/** c = or c += a b^T with a matrix b [N, K] that was packed (`packPanels`); a and c are F32. */
export interface PackedProduct {
  readonly m: number
  readonly n: number
  readonly k: number
  readonly a: number
  readonly b: number
  readonly dtype: PanelDType
  readonly c: number
  readonly aStride?: number
  readonly cStride?: number
  /** Bytes from panel to panel of b where they do not follow one another. */
  readonly panelBytes?: number
  readonly adds?: boolean
}

/** Matrix products over one memory; each thread makes its own, with scratch of its own. */
export interface Matmul {
  /** Part `part` of `parts` of a product. The parts write distinct columns of c; how many there are does not change a bit. */
  multiply(product: Product, part?: number, parts?: number): void
  multiplyPacked(product: PackedProduct, part?: number, parts?: number): void
}

/** The columns [begin, end) that part `part` of `multiplyPacked` writes. */
export function packedColumns(m: number, n: number, part: number, parts: number): readonly [number, number] {
  return columnsOf(n, m === 1 ? ROW_PANELS : 1, part, parts)
}

/**
 * Products in F32 by SIMD: an element of c is the sum over blocks of K_BLOCK k of the sums within the block, each in the order of k, every
 * multiplication and addition rounded. So results depend neither on M nor on the parts, and equal those of `referenceProduct` to the bit.
 * @param scratch Address of MATMUL_SCRATCH_BYTES, a multiple of 16.
 */
export function createMatmul(memory: KernelMemory, scratch: number): Matmul {
  const kernels = createKernels(memory)
  const aBlock = scratch
  const bBlock = aBlock + A_BYTES
  const decoded = bBlock + B_BYTES
  const edge = decoded + DECODED_BYTES
  let floats = new Float32Array(memory.buffer)

  /** Groups of `lanes` lanes, each of `steps` steps to rows of F32 at `target`. */
  function pack(
    from: Lanes,
    { lanes, groups, laneStep, targetStep }: Groups,
    steps: number,
    to: Place,
  ): void {
    if (groups === 0) return
    const { address, laneBytes, stepBytes } = from
    const { target, targetBytes } = to
    const apart = [groups, laneStep * laneBytes, targetStep] as const
    if (lanes === LANES && laneBytes === 4) {
      kernels.copy(address, stepBytes, target, targetBytes, steps, ...apart)
      return
    }
    const whole = lanes === LANES ? steps - (steps % LANES) : 0
    if (whole > 0) kernels.transpose(address, laneBytes, target, targetBytes, whole / LANES, ...apart)
    for (let lane = 0; lane < lanes && whole < steps; lane++) {
      const begin = address + lane * laneBytes + whole * stepBytes
      const end = target + whole * targetBytes + lane * 4
      kernels.lane(begin, stepBytes, end, targetBytes, steps - whole, ...apart)
    }
  }

  /** Rows of a, tile by tile, to `aBlock`. */
  function packRows(a: Lanes, rows: number, steps: number): void {
    const rest = rows % TILE
    const tiles = { lanes: TILE, groups: (rows - rest) / TILE, laneStep: TILE, targetStep: TILE * steps * 4 }
    pack(a, tiles, steps, { target: aBlock, targetBytes: TILE * 4 })
    if (rest === 0) return
    const last = { lanes: rest, groups: 1, laneStep: 0, targetStep: 0 }
    const target = aBlock + (rows - rest) * steps * 4
    pack(shifted(a, rows - rest, 0), last, steps, { target, targetBytes: rest * 4 })
  }

  /** Columns of b, panel by panel, to `bBlock`: first the left halves of all panels, then the right ones. */
  function packColumns(b: Lanes, columns: number, steps: number): void {
    const panelBytes = steps * PANEL * 4
    const targetBytes = PANEL * 4
    const rest = columns % LANES
    const quarters = (columns - rest) / LANES
    for (const half of [0, 1]) {
      const groups = Math.floor((quarters + 1 - half) / 2)
      const halves = { lanes: LANES, groups, laneStep: PANEL, targetStep: panelBytes }
      pack(shifted(b, half * LANES, 0), halves, steps, { target: bBlock + half * LANES * 4, targetBytes })
    }
    if (rest === 0) return
    const column = columns - rest
    const target = bBlock + Math.floor(column / PANEL) * panelBytes + (column % PANEL) * 4
    const last = { lanes: rest, groups: 1, laneStep: 0, targetStep: 0 }
    pack(shifted(b, column, 0), last, steps, { target, targetBytes })
  }

  /** Whole panels of c from packed operands. */
  function panels({ a, rows, steps, b, dtype, panelBytes, c, rowBytes, adds }: Block, count: number): void {
    if (count === 0) return
    const rest = rows % TILE
    const whole = rows - rest
    const added = Number(adds)
    if (whole > 0)
      kernels.tiles(TILE, dtype)(a, b, c, rowBytes, steps, whole / TILE, count, panelBytes, added, decoded)
    if (rest === 0) return
    const [last, to] = [a + whole * steps * 4, c + whole * rowBytes]
    kernels.tiles(rest, dtype)(last, b, to, rowBytes, steps, 1, count, panelBytes, added, decoded)
  }

  /** A panel of which only some columns are c's. */
  function edgePanel(block: Block, columns: number): void {
    if (floats.buffer !== memory.buffer) floats = new Float32Array(memory.buffer)
    const move = (row: number, isBack: boolean) => {
      const at = (block.c + row * block.rowBytes) / 4
      const own = edge / 4 + row * PANEL
      for (let i = 0; i < columns; i++)
        if (isBack) floats[at + i] = floats[own + i]!
        else floats[own + i] = floats[at + i]!
    }
    if (block.adds) for (let row = 0; row < block.rows; row++) move(row, false)
    panels({ ...block, c: edge, rowBytes: PANEL * 4 }, 1)
    for (let row = 0; row < block.rows; row++) move(row, true)
  }

  /** `columns` columns of c from packed operands. */
  function multiplyBlock(block: Block, columns: number): void {
    const { a, rows, steps, b, dtype, panelBytes, c, adds } = block
    const whole = Math.floor(columns / PANEL)
    const groups = rows === 1 ? Math.floor(whole / ROW_PANELS) : 0
    if (groups > 0) kernels.row(dtype)(a, b, c, steps, groups, panelBytes, Number(adds))
    const done = groups * ROW_PANELS
    const rest = done === 0 ? block : { ...block, b: b + done * panelBytes, c: c + done * PANEL * 4 }
    panels(rest, whole - done)
    if (whole * PANEL === columns) return
    edgePanel({ ...block, b: b + whole * panelBytes, c: c + whole * PANEL * 4 }, columns - whole * PANEL)
  }

  return {
    multiplyPacked(product, part = 0, parts = 1) {
      const { m, n, k, a, b, dtype, c, aStride = k, cStride = n, adds = false } = product
      const panelBytes = product.panelBytes ?? k * panelStep(dtype)
      const [begin, end] = packedColumns(m, n, part, parts)
      if (begin >= end) return
      const rowBytes = cStride * 4
      for (let row = 0; row < m; row += M_BLOCK)
        for (let step = 0; step < k; step += K_BLOCK) {
          const rows = Math.min(M_BLOCK, m - row)
          const steps = Math.min(K_BLOCK, k - step)
          const source = { address: a + (row * aStride + step) * 4, laneBytes: aStride * 4, stepBytes: 4 }
          if (m > 1) packRows(source, rows, steps)
          const block = { rows, steps, dtype, panelBytes, rowBytes, adds: adds || step > 0 }
          const packed = b + (begin / PANEL) * panelBytes + step * panelStep(dtype)
          const place = { a: m > 1 ? aBlock : source.address, b: packed, c: c + row * rowBytes + begin * 4 }
          multiplyBlock({ ...block, ...place }, end - begin)
        }
    },
    multiply(product, part = 0, parts = 1) {
      const { m, n, k, c, cStride = n, adds = false } = product
      const [a, b] = lanesOf(product)
      const [first, end] = columnsOf(n, 1, part, parts)
      const rowBytes = cStride * 4
      for (let column = first; column < end; column += PANEL_BLOCK * PANEL)
        for (let step = 0; step < k; step += K_BLOCK) {
          const columns = Math.min(PANEL_BLOCK * PANEL, end - column)
          const steps = Math.min(K_BLOCK, k - step)
          packColumns(shifted(b, column, step), columns, steps)
          for (let row = 0; row < m; row += M_BLOCK) {
            const rows = Math.min(M_BLOCK, m - row)
            packRows(shifted(a, row, step), rows, steps)
            multiplyBlock(
              // Written out: spreading objects takes longer than the product of small operands.
              {
                a: aBlock,
                rows,
                steps,
                b: bBlock,
                dtype: 'F32',
                panelBytes: steps * PANEL * 4,
                c: c + row * rowBytes + column * 4,
                rowBytes,
                adds: adds || step > 0,
              },
              columns,
            )
          }
        }
    },
  }
}

/** Where lane l of step i lies: address + l * laneBytes + i * stepBytes. */
interface Lanes {
  readonly address: number
  readonly laneBytes: number
  readonly stepBytes: number
}

/** Groups of lanes: lanes from group to group of the source, bytes from group to group of the target. */
interface Groups {
  readonly lanes: number
  readonly groups: number
  readonly laneStep: number
  readonly targetStep: number
}

/** Where packed lanes go, and bytes from step to step there. */
interface Place {
  readonly target: number
  readonly targetBytes: number
}

function shifted(lanes: Lanes, lane: number, step: number): Lanes {
  const { address, laneBytes, stepBytes } = lanes
  return { address: address + lane * laneBytes + step * stepBytes, laneBytes, stepBytes }
}

/** A product's rows of a, and its columns of b; the steps are k. */
function lanesOf({ form, m, n, k, a, b, aStride, bStride }: Product): readonly [Lanes, Lanes] {
  const along = (address: number, stride: number) => ({ address, laneBytes: stride * 4, stepBytes: 4 })
  const across = (address: number, stride: number) => ({ address, laneBytes: 4, stepBytes: stride * 4 })
  return [
    form === 'TN' ? across(a, aStride ?? m) : along(a, aStride ?? k),
    form === 'NT' ? along(b, bStride ?? k) : across(b, bStride ?? n),
  ]
}

/** Packed operands of one block of k, and where their product goes. */
interface Block {
  readonly a: number
  readonly rows: number
  readonly steps: number
  readonly b: number
  readonly dtype: PanelDType
  readonly panelBytes: number
  readonly c: number
  readonly rowBytes: number
  readonly adds: boolean
}

/** Columns of a part: whole units of panels. */
function columnsOf(n: number, unit: number, part: number, parts: number): readonly [number, number] {
  const width = PANEL * unit
  const units = Math.ceil(n / width)
  const at = (i: number) => Math.min(n, Math.floor((units * i) / parts) * width)
  return [at(part), at(part + 1)]
}

type Run = (...args: number[]) => void

/** The compiled loops over one memory, each made when it is first needed. */
function createKernels(memory: KernelMemory) {
  const made = new Map<string, Run>()
  /** By rows. */
  const tiles: Record<PanelDType, Run[]> = { F32: [], BF16: [], F16: [] }
  const kernel = (key: string, code: Parameters<typeof instantiateOver>[1]): Run => {
    const run = made.get(key) ?? instantiateOver(`matmul ${key}`, code, memory)
    made.set(key, run)
    return run
  }
  return {
    tiles(rows: number, dtype: PanelDType): Run {
      const run = tiles[dtype][rows]
      if (run) return run
      const made = kernel(`tiles ${rows} ${dtype}`, (limits) => generateTiles(rows, dtype, limits))
      tiles[dtype][rows] = made
      return made
    },
    row: (dtype: PanelDType) => kernel(`row ${dtype}`, (limits) => generateRow(dtype, limits)),
    transpose: kernel('transpose', generateTranspose),
    copy: kernel('copy', generateCopy),
    lane: kernel('lane', generateLane),
  }
}
