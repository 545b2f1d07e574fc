import {
  createKernelMemory,
  createMatmul,
  encode,
  type FloatArray,
  K_BLOCK,
  MATMUL_SCRATCH_BYTES,
  referenceProduct,
  simdAvailable,
} from '@polygraft/kernels'
import { byteSize, type Expr, type FloatDType } from '@polygraft/tensor'
import type { Kernels } from './_kernel-pool.js'

type LowRank = Extract<Expr, { op: 'lowrank' }>

/** Elements of the operands and of a block of the product that are in memory at a time. */
const UP_ELEMENTS = 64 * 1024
const DOWN_ELEMENTS = 1024 * 1024
const PRODUCT_ELEMENTS = 256 * 1024

/** What computing products takes in each thread, beside tiles. Unit: bytes. */
export const LOW_RANK_BYTES = MATMUL_SCRATCH_BYTES + 4 * (UP_ELEMENTS + DOWN_ELEMENTS + PRODUCT_ELEMENTS)

/** `fill` of an evaluator, which yields the reads that it needs. */
type Fill<Read> = (
  expr: Expr,
  dtype: FloatDType,
  begin: number,
  count: number,
  out: Uint8Array,
) => Generator<Read, void, void>

/** Part of the product: rows [row, row + rows) and columns [column, column + columns). */
interface Block {
  readonly row: number
  readonly rows: number
  readonly column: number
  readonly columns: number
}

/** Buffers for one product at a time, and the product over them. */
interface Products {
  readonly up: FloatArray
  readonly down: FloatArray
  readonly product: FloatArray
  /** A tile of the result. */
  readonly tile: FloatArray
  /** product [rows, columns] = or += up [rows, depth] x down [depth, columns]. */
  multiply(rows: number, depth: number, columns: number, adds: boolean): void
  /** What `down` holds, which the next tiles of the same tensor want as well. */
  held: string
  heldOf?: Expr
}

/** Computes elements of `lowrank` expressions. */
export interface LowRankFiller<Read> {
  fill(expr: LowRank, dtype: FloatDType, begin: number, count: number, out: Uint8Array): Generator<Read, void>
}

/** @param maxElements the most that `fill` may be asked for. */
export function lowRankFiller<Read>(
  fill: Fill<Read>,
  maxElements: number,
  kernels: Kernels,
): LowRankFiller<Read> {
  const idle = new Map<'F32' | 'F64', Products[]>([
    ['F32', []],
    ['F64', []],
  ])
  const chunk = Math.min(maxElements, 64 * 1024)

  /** A block of `expr`, whose rows have `width` elements, row after row. */
  function* gather(
    { expr, width, block }: { expr: Expr; width: number; block: Block },
    wide: 'F32' | 'F64',
    into: FloatArray,
  ): Generator<Read, void, void> {
    const { row, rows, column, columns } = block
    // Whole rows follow one another, and so does a piece of one row.
    const runs = columns === width ? 1 : rows
    const length = columns === width ? rows * width : columns
    for (let run = 0; run < runs; run++) {
      const begin = (row + run) * width + column
      for (let done = 0; done < length; done += chunk) {
        const count = Math.min(chunk, length - done)
        const part = into.subarray(run * columns + done, run * columns + done + count)
        const bytes = new Uint8Array(part.buffer, part.byteOffset, part.byteLength)
        yield* fill(expr, wide, begin + done, count, bytes)
      }
    }
  }

  /** A block of the product. */
  function* multiply(
    { up, down, rank, width }: LowRank,
    block: Block,
    wide: 'F32' | 'F64',
    products: Products,
  ): Generator<Read, void, void> {
    for (let k = 0; k < rank; k += K_BLOCK) {
      const depth = Math.min(K_BLOCK, rank - k)
      const { row, rows, column, columns } = block
      const wanted = `${k} ${column} ${columns}`
      if (products.heldOf !== down || products.held !== wanted) {
        delete products.heldOf
        const part = { row: k, rows: depth, column, columns }
        yield* gather({ expr: down, width, block: part }, wide, products.down)
        Object.assign(products, { held: wanted, heldOf: down })
      }
      const part = { row, rows, column: k, columns: depth }
      yield* gather({ expr: up, width: rank, block: part }, wide, products.up)
      products.multiply(rows, depth, columns, k > 0)
    }
  }

  return {
    *fill(expr, dtype, begin, count, out) {
      const wide = dtype === 'F64' ? 'F64' : 'F32'
      const products = idle.get(wide)!.pop() ?? createProducts(wide, maxElements, kernels)
      const values = products.tile.subarray(0, count)
      const across = expr.transposed ? expr.rows : expr.width
      for (const piece of rectangles(begin, count, across)) {
        const whole = expr.transposed ? flipped(piece) : piece
        for (const block of blocksOf(whole, Math.min(expr.rank, K_BLOCK))) {
          yield* multiply(expr, block, wide, products)
          const { row, column, rows, columns } = block
          const at = (r: number, c: number) => (expr.transposed ? c * across + r : r * across + c)
          for (let r = 0; r < rows; r++) {
            const from = r * columns
            if (expr.transposed)
              for (let c = 0; c < columns; c++)
                values[at(row + r, column + c) - begin] = products.product[from + c]!
            else values.set(products.product.subarray(from, from + columns), at(row + r, column) - begin)
          }
        }
      }
      idle.get(wide)!.push(products)
      encode(dtype, values, out.subarray(0, byteSize(dtype, count)))
    },
  }
}

/** Elements [begin, begin + count) of a matrix of `across` columns as up to three rectangles. */
function* rectangles(begin: number, count: number, across: number): Generator<Block> {
  const end = begin + count
  for (let at = begin; at < end; ) {
    const [row, column] = [Math.floor(at / across), at % across]
    const isWhole = column === 0 && end - at >= across
    const rows = isWhole ? Math.floor((end - at) / across) : 1
    const columns = isWhole ? across : Math.min(across - column, end - at)
    yield { row, rows, column, columns }
    at += rows * columns
  }
}

function flipped({ row, rows, column, columns }: Block): Block {
  return { row: column, rows: columns, column: row, columns: rows }
}

/** `whole` in blocks that the buffers hold; those with the same columns follow one another, since they share `down`. */
function* blocksOf(whole: Block, depth: number): Generator<Block> {
  const columnStep = Math.min(whole.columns, Math.floor(DOWN_ELEMENTS / depth), PRODUCT_ELEMENTS)
  const rowStep = Math.max(
    1,
    Math.min(Math.floor(UP_ELEMENTS / depth), Math.floor(PRODUCT_ELEMENTS / columnStep)),
  )
  for (let column = 0; column < whole.columns; column += columnStep)
    for (let row = 0; row < whole.rows; row += rowStep)
      yield {
        row: whole.row + row,
        rows: Math.min(rowStep, whole.rows - row),
        column: whole.column + column,
        columns: Math.min(columnStep, whole.columns - column),
      }
}

function createProducts(wide: 'F32' | 'F64', maxElements: number, kernels: Kernels): Products {
  if (wide === 'F64' || kernels === 'reference' || !simdAvailable()) return plainProducts(wide, maxElements)
  const up = MATMUL_SCRATCH_BYTES
  const down = up + 4 * UP_ELEMENTS
  const product = down + 4 * DOWN_ELEMENTS
  const memory = createKernelMemory(product + 4 * PRODUCT_ELEMENTS)
  const matmul = createMatmul(memory, 0)
  return {
    up: new Float32Array(memory.buffer, up, UP_ELEMENTS),
    down: new Float32Array(memory.buffer, down, DOWN_ELEMENTS),
    product: new Float32Array(memory.buffer, product, PRODUCT_ELEMENTS),
    tile: new Float32Array(maxElements),
    multiply: (m, k, n, adds) => matmul.multiply({ form: 'NN', m, n, k, a: up, b: down, c: product, adds }),
    held: '',
  }
}

function plainProducts(wide: 'F32' | 'F64', maxElements: number): Products {
  const create = (length: number) => (wide === 'F64' ? new Float64Array(length) : new Float32Array(length))
  const [up, down, product] = [create(UP_ELEMENTS), create(DOWN_ELEMENTS), create(PRODUCT_ELEMENTS)]
  return {
    ...{ up, down, product },
    tile: create(maxElements),
    multiply: (m, k, n, adds) =>
      referenceProduct(
        [m, n, k],
        (row, i) => up[row * k + i]!,
        (column, i) => down[i * n + column]!,
        product,
        adds,
      ),
    held: '',
  }
}
