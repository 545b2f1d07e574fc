import type { Machine } from './_machine.js'
import { operation, shareOf } from './_operation.js'
import type { Product } from './matmul.js'

/*
 * What training needs besides the decoder's operations, on F32 rows without gaps. Rows, elements, or columns are shared out among the parts;
 * what is added up is added by one part in a fixed order, so no bit depends on how many there are.
 */

/** The forms of a product; an instruction gives the index. */
export const PRODUCT_FORMS: readonly Product['form'][] = ['NT', 'NN', 'TN']

/** c [m, n] = or += a b^T, a b or a^T b, as `Product` says. Parts take rows or columns, whatever there are more of. */
export const product = operation(
  ['form', 'm', 'n', 'k', 'a', 'b', 'c', 'adds'],
  ({ matmul }, { form: index, m, n, k, a, b, c, adds: isAdded }, part, parts) => {
    const form = PRODUCT_FORMS[index]!
    const adds = isAdded !== 0
    if (n >= m || parts === 1) {
      matmul.multiply({ form, m, n, k, a, b, c, adds }, part, parts)
      return
    }
    const [begin, end] = shareOf(Math.ceil(m / 4), part, parts).map((tile) => Math.min(m, tile * 4)) as [
      number,
      number,
    ]
    const place = { a: a + begin * (form === 'TN' ? 4 : k * 4), c: c + begin * n * 4 }
    const aStride = form === 'TN' ? m : k
    if (end > begin) matmul.multiply({ form, m: end - begin, n, k, b, ...place, aStride, adds })
  },
)

/** x [rows, columns] += bias [columns] on every row. */
export const addBias = operation(
  ['bias', 'x', 'rows', 'columns'],
  (machine, { bias, x, rows, columns }, part, parts) => {
    const floats = machine.floats()
    const [begin, end] = shareOf(rows, part, parts)
    for (let row = begin; row < end; row++)
      for (let i = 0; i < columns; i++) floats[x / 4 + row * columns + i]! += floats[bias / 4 + i]!
  },
)

/** sums [columns] += the sums over rows of x [rows, columns]. */
export const addColumns = operation(
  ['x', 'sums', 'rows', 'columns'],
  (machine, { x, sums, rows, columns }, part, parts) => {
    const floats = machine.floats()
    const [begin, end] = shareOf(columns, part, parts)
    for (let row = 0; row < rows; row++)
      for (let i = begin; i < end; i++) floats[sums / 4 + i]! += floats[x / 4 + row * columns + i]!
  },
)

/** x = 0. */
export const clear = operation(['x', 'count'], ({ training }, { x, count }, part, parts) => {
  const [skip, share] = quads(count, part, parts)
  training.clear(x + skip, share)
})

/** out = x. */
export const copy = operation(['x', 'out', 'count'], ({ training }, { x, out, count }, part, parts) => {
  const [skip, share] = quads(count, part, parts)
  training.copy(x + skip, out + skip, share)
})

/** RMSNorm that keeps the factor of each row in `scales` [rows]. */
export const trainingNorm = operation(
  ['x', 'weight', 'y', 'scales', 'rows', 'width', 'eps'],
  ({ training }, { x, weight, y, scales, rows, width, eps }, part, parts) => {
    const [begin, end] = shareOf(rows, part, parts)
    const skip = begin * width * 4
    training.norm(x + skip, weight, y + skip, scales + begin * 4, end - begin, width, eps)
  },
)

/** dx = or += the gradient of the norm's input. */
export const normBackward = operation(
  ['x', 'weight', 'scales', 'dy', 'dx', 'rows', 'width', 'adds'],
  ({ training }, { x, weight, scales, dy, dx, rows, width, adds }, part, parts) => {
    const [begin, end] = shareOf(rows, part, parts)
    const skip = begin * width * 4
    const places = [x + skip, weight, scales + begin * 4, dy + skip, dx + skip] as const
    training.normBackward(...places, end - begin, width, adds !== 0)
  },
)

/** gradient [width] += the sum over rows of dy x scale. */
export const normWeightGradient = operation(
  ['x', 'scales', 'dy', 'gradient', 'rows', 'width'],
  (machine, { x, scales, dy, gradient, rows, width }, part, parts) => {
    const floats = machine.floats()
    const [begin, end] = shareOf(width, part, parts)
    for (let row = 0; row < rows; row++) {
      const scale = floats[scales / 4 + row]!
      for (let i = begin; i < end; i++) {
        const at = row * width + i
        floats[gradient / 4 + i]! += floats[dy / 4 + at]! * floats[x / 4 + at]! * scale
      }
    }
  },
)

/** hidden = silu(gate) up. */
export const silu = operation(
  ['gate', 'up', 'hidden', 'count'],
  ({ training }, { gate, up, hidden, count }, part, parts) => {
    const [skip, share] = quads(count, part, parts)
    training.silu(gate + skip, up + skip, hidden + skip, share)
  },
)

/** gate and up become their gradients. */
export const siluBackward = operation(
  ['gate', 'up', 'dHidden', 'count'],
  ({ training }, { gate, up, dHidden, count }, part, parts) => {
    const [skip, share] = quads(count, part, parts)
    training.siluBackward(gate + skip, up + skip, dHidden + skip, share)
  },
)

/** RoPE in place; rows [rows, heads, headDim]. */
export const rotate = operation(
  ['x', 'cos', 'sin', 'rows', 'heads', 'headDim', 'rotated', 'isBack'],
  ({ training }, { x, cos, sin, rows, heads, headDim, rotated, isBack }, part, parts) => {
    const [begin, end] = shareOf(rows, part, parts)
    const angles = begin * rotated * 2
    const place = [x + begin * heads * headDim * 4, cos + angles, sin + angles] as const
    training.rotate(...place, end - begin, heads, headDim, rotated, isBack !== 0)
  },
)

/** x [rows, width] = softmax(x) weights[row]; maxima and sums to `stats` [rows, 2]. */
export const weightedSoftmax = operation(
  ['x', 'weights', 'stats', 'rows', 'width'],
  ({ training }, { x, weights, stats, rows, width }, part, parts) => {
    const [begin, end] = shareOf(rows, part, parts)
    const place = [weights + begin * 4, stats + begin * 8] as const
    training.weightedSoftmax(x + begin * width * 4, end - begin, width, ...place)
  },
)

/** out row i = x row indices[i]. */
export const gatherRows = operation(
  ['x', 'indices', 'out', 'count', 'width'],
  ({ training }, { x, indices, out, count, width }, part, parts) => {
    const [begin, end] = shareOf(count, part, parts)
    training.gather(x, indices + begin * 4, out + begin * width * 4, end - begin, width)
  },
)

/** table row indices[i] += x row i, in the order of i. */
export const scatterRows = operation(
  ['x', 'indices', 'table', 'count', 'width'],
  (machine, { x, indices, table, count, width }, part, parts) => {
    const floats = machine.floats()
    const words = machine.words()
    const [begin, end] = shareOf(width, part, parts)
    for (let row = 0; row < count; row++) {
      const to = table / 4 + words[indices / 4 + row]! * width
      for (let i = begin; i < end; i++) floats[to + i]! += floats[x / 4 + row * width + i]!
    }
  },
)

/** out row t += the sum over s of weights[t, s] y row places[t, s]. */
export const combineRows = operation(
  ['y', 'places', 'weights', 'out', 'rows', 'topK', 'width'],
  ({ training }, { y, places, weights, out, rows, topK, width }, part, parts) => {
    const [begin, end] = shareOf(rows, part, parts)
    const slots = begin * topK * 4
    const to = out + begin * width * 4
    training.combine(y, places + slots, weights + slots, to, end - begin, topK, width)
  },
)

/** With d row sources[i]: dots[i] = d . y row i, dy row i = weights[i] d. */
export const spreadRows = operation(
  ['d', 'sources', 'y', 'weights', 'dy', 'dots', 'count', 'width'],
  ({ training }, { d, sources, y, weights, dy, dots, count, width }, part, parts) => {
    const [begin, end] = shareOf(count, part, parts)
    const [skip, rows] = [begin * 4, begin * width * 4]
    training.spread(
      ...([d, sources + skip, y + rows, weights + skip, dy + rows, dots + skip] as const),
      end - begin,
      width,
    )
  },
)

/** One step of AdamW. */
export const adamW = operation(
  [
    ...(['value', 'gradient', 'first', 'second', 'count'] as const),
    ...(['factor', 'beta1', 'beta2', 'eps', 'rate', 'weightDecay', 'step'] as const),
  ],
  ({ training }, { value, gradient, first, second, count, ...scalars }, part, parts) => {
    const [skip, share] = quads(count, part, parts)
    training.adamW(value + skip, gradient + skip, first + skip, second + skip, share, scalars)
  },
)

/** Elements whose squares are summed apart, so that the sum does not depend on the parts. */
export const SQUARES_BLOCK = 4096

/** sums [blocks], F64: the sum of squares of every SQUARES_BLOCK elements of x. */
export const squares = operation(['x', 'count', 'sums'], (machine, { x, count, sums }, part, parts) => {
  const blocks = Math.ceil(count / SQUARES_BLOCK)
  const [begin, end] = shareOf(blocks, part, parts)
  const out = new Float64Array(machine.bytes().buffer, sums, blocks)
  for (let block = begin; block < end; block++) {
    const first = block * SQUARES_BLOCK
    out[block] = machine.training.squares(x + first * 4, Math.min(SQUARES_BLOCK, count - first))
  }
})

/** A part of `count` elements, in fours: bytes before it, and its elements. */
function quads(count: number, part: number, parts: number): readonly [number, number] {
  const [begin, end] = shareOf(Math.ceil(count / 4), part, parts)
  return [begin * 16, Math.min(count, end * 4) - begin * 4]
}

const ATTENTION_FIELDS = [
  ...(['q', 'k', 'v', 'p', 'segments', 'numSegments'] as const),
  ...(['heads', 'keyValueHeads', 'headDim', 'window', 'scale'] as const),
] as const

type AttentionOperands = Readonly<Record<(typeof ATTENTION_FIELDS)[number], number>>

/** One head of one document: addresses, its tokens, and elements from row to row of p. */
interface Head {
  readonly q: number
  readonly keyValue: number
  readonly p: number
  readonly length: number
  readonly stride: number
}

/** Elements that a row of probabilities of a document takes. */
export function probabilityStride(length: number): number {
  return Math.ceil(length / 4) * 4
}

/**
 * Calls `run` for this part's heads. `segments` holds three words for each document: its first token, its tokens, and the element of p
 * where its probabilities begin. q: bytes into q's and o's rows, keyValue: into k's and v's. A group of heads that shares a key is one
 * part's, since gradients add up there.
 */
function forEachHead(
  machine: Machine,
  operands: AttentionOperands,
  part: number,
  parts: number,
  run: (head: Head) => void,
): void {
  const { p, segments, numSegments, heads, keyValueHeads, headDim } = operands
  const words = machine.words()
  const group = heads / keyValueHeads
  for (let item = part; item < numSegments * keyValueHeads; item += parts) {
    const [segment, keyValueHead] = [Math.floor(item / keyValueHeads), item % keyValueHeads]
    const [begin, length, first] = [0, 1, 2].map((i) => words[segments / 4 + segment * 3 + i]!) as [
      number,
      number,
      number,
    ]
    const stride = probabilityStride(length)
    for (let head = keyValueHead * group; head < (keyValueHead + 1) * group; head++)
      run({
        q: (begin * heads + head) * headDim * 4,
        keyValue: (begin * keyValueHeads + keyValueHead) * headDim * 4,
        p: p + (first + head * length * stride) * 4,
        ...{ length, stride },
      })
  }
}

/**
 * o = causal softmax(scale q k^T) v within each document, over the last `window` positions. q, o [T, heads, headDim]; k, v
 * [T, keyValueHeads, headDim]. The probabilities stay in p.
 */
export const attendDocuments = operation([...ATTENTION_FIELDS, 'o'], (machine, operands, part, parts) => {
  const { q, k, v, o, heads, keyValueHeads, headDim, window, scale } = operands
  const [wide, narrow] = [heads * headDim, keyValueHeads * headDim]
  const { matmul, training } = machine
  forEachHead(machine, operands, part, parts, ({ q: row, keyValue, p, length, stride }) => {
    const [a, b, n] = [q + row, k + keyValue, length]
    const strides = { aStride: wide, bStride: narrow, cStride: stride }
    matmul.multiply({ form: 'NT', m: length, n, k: headDim, a, b, c: p, ...strides })
    training.causalSoftmax(p, length, stride, window, scale)
    const back = { aStride: stride, bStride: narrow, cStride: wide }
    matmul.multiply({
      form: 'NN',
      m: length,
      n: headDim,
      k: length,
      a: p,
      b: v + keyValue,
      c: o + row,
      ...back,
    })
  })
})

/** dq = its gradient; dk and dv are added to. `scratch`: for each part the longest document's length times its stride. */
export const attendDocumentsBackward = operation(
  [...ATTENTION_FIELDS, 'dO', 'dq', 'dk', 'dv', 'scratch', 'scratchBytes'],
  (machine, operands, part, parts) => {
    const { q, k, v, dO, dq, dk, dv, heads, keyValueHeads, headDim, scale } = operands
    const [wide, narrow] = [heads * headDim, keyValueHeads * headDim]
    const { matmul, training } = machine
    const dp = operands.scratch + part * operands.scratchBytes
    forEachHead(machine, operands, part, parts, ({ q: row, keyValue, p, length, stride }) => {
      const [own, m, n] = [dO + row, length, headDim]
      const [wideNarrow, back] = [
        { aStride: wide, bStride: narrow, cStride: stride },
        { aStride: stride, bStride: narrow, cStride: wide },
      ]
      matmul.multiply({ form: 'NT', m, n: m, k: n, a: own, b: v + keyValue, c: dp, ...wideNarrow })
      training.softmaxBackward(p, dp, length, stride, scale)
      matmul.multiply({ form: 'NN', m, n, k: m, a: dp, b: k + keyValue, c: dq + row, ...back })
      const across = { aStride: stride, bStride: wide, cStride: narrow, adds: true }
      matmul.multiply({ form: 'TN', m, n, k: m, a: dp, b: q + row, c: dk + keyValue, ...across })
      matmul.multiply({ form: 'TN', m, n, k: m, a: p, b: own, c: dv + keyValue, ...across })
    })
  },
)
