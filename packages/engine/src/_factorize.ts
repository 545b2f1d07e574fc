import {
  createKernelMemory,
  createMatmul,
  decode,
  growKernelMemory,
  K_BLOCK,
  type KernelMemory,
  MATMUL_SCRATCH_BYTES,
  orthonormalize,
  randomValues,
  referenceProduct,
  type Svd,
  simdAvailable,
  svd,
} from '@polygraft/kernels'
import { byteSize, type FloatDType, ModelError, type Tensor } from '@polygraft/tensor'
import type { Kernels } from './_kernel-pool.js'

/*
 * Letters: D [M, N] the matrix, L columns of a sketch, r the rank that is kept.
 */

/** How much of a matrix is wanted. */
export interface RankChoice {
  /** The rank, or with `energy` the most. */
  readonly rank: number
  /** The least rank that keeps this share of the sum of squares, up to `rank`. Above 0, at most 1. */
  readonly energy?: number
}

/** D cut to a low rank, D_r = up down: of all matrices of that rank the nearest, where `exact`. */
export interface LowRank {
  /** r; 0 where an energy was asked for of a matrix of zeros. */
  readonly rank: number
  /** [M, r]: left singular vectors times the roots of the values. */
  readonly up: Float32Array
  /** [r, N]: right singular vectors times the same. */
  readonly down: Float32Array
  /** The r singular values, descending. */
  readonly values: Float64Array
  /** Sum of the squares of D. */
  readonly squares: number
  /** Share of them that D_r keeps: 1 - ||D - D_r||^2 / ||D||^2; 1 for a matrix of zeros. */
  readonly energy: number
  /** Whether all singular values were found, or a sketch's. */
  readonly exact: boolean
  /** Elements that are NaN or infinite; with any, nothing else is there. */
  readonly nonFinite: number
}

/** Up to these sizes all singular vectors are found. */
const EXACT_SIDE = 256
const EXACT_ELEMENTS = 1024 * 1024
/** Columns of the sketch beyond the rank, and applications of D^T D to it (Halko et al., sections 4.2 and 4.5). */
const OVERSAMPLING = 10
const POWER = 2

/** How often D is gone over. */
export function passesOf([m, n]: readonly [number, number]): number {
  return isExact(m, n) ? 1 : POWER + 1
}

function isExact(m: number, n: number): boolean {
  return Math.min(m, n) <= EXACT_SIDE && m * n <= EXACT_ELEMENTS
}

/** `count` elements of a tensor from `begin` on, as stored; yields the reads that it needs. */
type Fill<Read> = (tensor: Tensor, begin: number, count: number, out: Uint8Array) => Generator<Read, void>

/** Cuts matrices to low ranks, one at a time. */
export interface Factorizer<Read> {
  run(tensor: Tensor, choice: RankChoice): Generator<Read, LowRank>
}

/**
 * Small matrices by their whole SVD in F64. Of larger ones a random sketch (Halko, Martinsson and Tropp, arXiv:0909.4061): the rows of D
 * pass by in blocks, Z = orth((D^T D)^2 Omega) [N, L] with L = r + 10, products in F32 and orthonormalised in F64, and then D Z
 * has the singular values and left vectors. Omega is drawn by element, and blocks are a constant, so that bits depend on D and r alone.
 */
export function factorizer<Read>(fill: Fill<Read>, kernels: Kernels): Factorizer<Read> {
  const space = workspace(kernels)

  function* exact(tensor: Tensor, choice: RankChoice): Generator<Read, LowRank> {
    const [m, n] = tensor.shape as [number, number]
    const columns = Array.from({ length: n }, () => new Float64Array(m))
    const sums = { squares: 0, nonFinite: 0 }
    const rows = Math.max(1, Math.floor((64 * 1024) / n))
    for (let row = 0; row < m; row += rows) {
      const count = Math.min(rows, m - row) * n
      const values = new Float64Array(count)
      yield* read(tensor, row * n, values)
      addSquares(values, sums)
      for (let i = 0; i < count; i++) columns[i % n]![row + Math.floor(i / n)] = values[i]!
    }
    return sums.nonFinite > 0 ? notFinite(sums) : cut(svd(columns), choice, sums.squares, true)
  }

  function* sketched(tensor: Tensor, choice: RankChoice): Generator<Read, LowRank> {
    const [m, n] = tensor.shape as [number, number]
    const l = Math.min(choice.rank + OVERSAMPLING, m, n)
    const { block, z, y, w } = space.reserve({ block: K_BLOCK * n, z: n * l, y: K_BLOCK * l, w: n * l })
    const sums = { squares: 0, nonFinite: 0 }
    randomValues('normal', 1, 0, 'sketch', 0, z.values)
    for (let pass = 0; pass <= POWER; pass++) {
      const isLast = pass === POWER
      const seen = isLast ? zeros(l, m) : undefined
      w.values.fill(0)
      for (let row = 0; row < m; row += K_BLOCK) {
        const rows = Math.min(K_BLOCK, m - row)
        const values = block.values.subarray(0, rows * n)
        yield* read(tensor, row * n, values)
        if (pass === 0) addSquares(values, sums)
        space.multiply({ form: 'NN', m: rows, n: l, k: n, a: block.at, b: z.at, c: y.at })
        if (seen) toColumns(y.values, rows, seen, row)
        else space.multiply({ form: 'TN', m: n, n: l, k: rows, a: block.at, b: y.at, c: w.at, adds: true })
      }
      if (sums.nonFinite > 0) return notFinite(sums)
      if (seen) return cut(backTo(z.values, n, svd(seen)), choice, sums.squares, false)
      const columns = zeros(l, n)
      toColumns(w.values, n, columns, 0)
      orthonormalize(columns)
      fromColumns(columns, z.values)
    }
    throw new Error('unreachable')
  }

  function* read(tensor: Tensor, begin: number, out: Float32Array | Float64Array): Generator<Read, void> {
    const bytes = new Uint8Array(byteSize(tensor.dtype, out.length))
    yield* fill(tensor, begin, out.length, bytes)
    decode(tensor.dtype as FloatDType, bytes, out)
  }

  return {
    run(tensor, choice) {
      const [m, n] = tensor.shape as [number, number]
      return isExact(m, n) ? exact(tensor, choice) : sketched(tensor, choice)
    },
  }
}

/** The first r triplets as factors. */
function cut({ u, values, v }: Svd, { rank, energy }: RankChoice, squares: number, exact: boolean): LowRank {
  const most = Math.min(rank, values.length)
  let kept = 0
  let r = 0
  // Of rounding: the values' squares may sum up to a little less than the elements'.
  const isEnough = () => energy !== undefined && kept >= energy * squares * (1 - 1e-12)
  while (r < most && !isEnough()) kept += values[r++]! ** 2
  const roots = values.slice(0, r).map(Math.sqrt)
  const [m, n] = [u[0]?.length ?? 0, v[0]?.length ?? 0]
  return {
    rank: r,
    up: Float32Array.from({ length: m * r }, (_, i) => u[i % r]![Math.floor(i / r)]! * roots[i % r]!),
    down: Float32Array.from(
      { length: r * n },
      (_, i) => v[Math.floor(i / n)]![i % n]! * roots[Math.floor(i / n)]!,
    ),
    values: values.slice(0, r),
    squares,
    energy: squares === 0 ? 1 : Math.min(1, kept / squares),
    exact,
    nonFinite: 0,
  }
}

/** D Z = u s v^T, so that D is about u s (Z v)^T. */
function backTo(z: Float32Array, n: number, { u, values, v }: Svd): Svd {
  const l = z.length / n
  const right = v.map((weights) =>
    Float64Array.from({ length: n }, (_, i) => {
      let sum = 0
      for (let j = 0; j < l; j++) sum += z[i * l + j]! * weights[j]!
      return sum
    }),
  )
  return { u, values, v: right }
}

function notFinite({
  squares,
  nonFinite,
}: {
  readonly squares: number
  readonly nonFinite: number
}): LowRank {
  const none = { up: new Float32Array(0), down: new Float32Array(0), values: new Float64Array(0) }
  return { ...none, rank: 0, squares, energy: 0, exact: false, nonFinite }
}

function addSquares(values: Float32Array | Float64Array, sums: { squares: number; nonFinite: number }): void {
  let sum = 0
  let bad = 0
  for (let i = 0; i < values.length; i++) {
    const x = values[i]!
    if (x - x === 0) sum += x * x
    else bad++
  }
  sums.squares += sum
  sums.nonFinite += bad
}

function zeros(count: number, length: number): Float64Array[] {
  return Array.from({ length: count }, () => new Float64Array(length))
}

/** Rows of a row-major matrix into columns from `begin` on. */
function toColumns(
  values: Float32Array,
  rows: number,
  columns: readonly Float64Array[],
  begin: number,
): void {
  for (const [c, column] of columns.entries())
    for (let row = 0; row < rows; row++) column[begin + row] = values[row * columns.length + c]!
}

function fromColumns(columns: readonly Float64Array[], values: Float32Array): void {
  for (const [c, column] of columns.entries())
    for (let row = 0; row < column.length; row++) values[row * columns.length + c] = column[row]!
}

interface Product {
  readonly form: 'NN' | 'TN'
  readonly m: number
  readonly n: number
  readonly k: number
  readonly a: number
  readonly b: number
  readonly c: number
  readonly adds?: boolean
}

/** A matrix in the workspace; `at` is its address. */
interface Place {
  readonly at: number
  readonly values: Float32Array
}

/** Memory that products run on; what was reserved before is lost. */
interface Workspace {
  reserve<Name extends string>(elements: Readonly<Record<Name, number>>): Record<Name, Place>
  multiply(product: Product): void
}

function tooLarge(bytes: number): ModelError {
  return new ModelError({
    code: 'memory-budget',
    message: 'The memory for cutting a matrix to a low rank cannot be had',
    expected: `${Math.ceil(bytes / 2 ** 20)} MiB, at most 4096`,
    next: 'Ask for a lower rank.',
  })
}

function workspace(kernels: Kernels): Workspace {
  const isSimd = kernels === 'simd' && simdAvailable()
  let memory: KernelMemory | { buffer: ArrayBuffer } = isSimd
    ? createKernelMemory(MATMUL_SCRATCH_BYTES)
    : { buffer: new ArrayBuffer(0) }
  const matmul = isSimd ? createMatmul(memory as KernelMemory, 0) : undefined

  return {
    reserve(elements) {
      let at = MATMUL_SCRATCH_BYTES
      const starts = Object.entries<number>(elements).map(([name, count]) => {
        const begin = at
        at += Math.ceil(count / 4) * 16
        return [name, begin, count] as const
      })
      if (isSimd) {
        if (!growKernelMemory(memory as KernelMemory, at)) throw tooLarge(at)
      } else if (memory.buffer.byteLength < at) memory = { buffer: new ArrayBuffer(at) }
      const places = starts.map(([name, begin, count]) => {
        return [name, { at: begin, values: new Float32Array(memory.buffer, begin, count) }] as const
      })
      return Object.fromEntries(places) as Record<keyof typeof elements, Place>
    },
    multiply(product) {
      if (matmul) return matmul.multiply(product)
      const { form, m, n, k, a, b, c, adds = false } = product
      const [left, right, out] = [
        new Float32Array(memory.buffer, a, m * k),
        new Float32Array(memory.buffer, b, k * n),
        new Float32Array(memory.buffer, c, m * n),
      ]
      const of =
        form === 'TN'
          ? (row: number, i: number) => left[i * m + row]!
          : (row: number, i: number) => left[row * k + i]!
      referenceProduct([m, n, k], of, (column, i) => right[i * n + column]!, out, adds)
    },
  }
}
