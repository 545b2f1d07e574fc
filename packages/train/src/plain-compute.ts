import { attention, attentionBackward } from './_attention.js'
import { rotate } from './_heads.js'
import { adamWTensor } from './adamw.js'
import type { Compute } from './compute.js'
import { plainMatmul } from './matmul.js'

/** The computation in plain TypeScript, in the precision of its operands: the reference, and the one for F64. */
export const plainCompute: Compute = {
  ...plainMatmul,
  flush() {},
  addBias(x, bias, rows, columns) {
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) x[i * columns + j]! += bias[j]!
  },
  addColumns(sums, x, rows, columns) {
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) sums[j]! += x[i * columns + j]!
  },
  clear(x) {
    x.fill(0)
  },
  copy(x, out) {
    out.set(x)
  },
  norm(x, weight, eps, rows, width, y, scales) {
    for (let i = 0; i < rows; i++) {
      const at = i * width
      let squares = 0
      for (let j = 0; j < width; j++) squares += x[at + j]! * x[at + j]!
      const scale = 1 / Math.sqrt(squares / width + eps)
      scales[i] = scale
      for (let j = 0; j < width; j++) y[at + j] = x[at + j]! * scale * weight[j]!
    }
  },
  normBackward(x, weight, scales, dy, rows, width, dx, add) {
    for (let i = 0; i < rows; i++) {
      const at = i * width
      const scale = scales[i]!
      let along = 0
      for (let j = 0; j < width; j++) along += dy[at + j]! * weight[j]! * x[at + j]!
      const back = (along * scale * scale * scale) / width
      for (let j = 0; j < width; j++) {
        const change = dy[at + j]! * weight[j]! * scale - x[at + j]! * back
        dx[at + j] = add ? dx[at + j]! + change : change
      }
    }
  },
  normWeightGradient(x, scales, dy, rows, width, gradient) {
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < width; j++) gradient[j]! += dy[i * width + j]! * x[i * width + j]! * scales[i]!
  },
  silu(gate, up, hidden) {
    for (let i = 0; i < hidden.length; i++) hidden[i] = gate[i]! * sigmoid(gate[i]!) * up[i]!
  },
  siluBackward(gate, up, dHidden) {
    for (let i = 0; i < dHidden.length; i++) {
      const s = sigmoid(gate[i]!)
      const silu = gate[i]! * s
      const d = dHidden[i]!
      gate[i] = d * up[i]! * (s + silu * (1 - s))
      up[i] = d * silu
    }
  },
  rotate,
  attention,
  attentionBackward,
  weightedSoftmax(x, weights, stats, rows, width) {
    for (let i = 0; i < rows; i++) {
      const row = x.subarray(i * width, (i + 1) * width)
      let [highest, sum] = [-Infinity, 0]
      for (let j = 0; j < width; j++) highest = Math.max(highest, row[j]!)
      for (let j = 0; j < width; j++) {
        row[j] = Math.exp(row[j]! - highest)
        sum += row[j]!
      }
      stats.set([highest, sum], i * 2)
      for (let j = 0; j < width; j++) row[j]! *= weights[i]! / sum
    }
  },
  gather(x, indices, out, width) {
    for (const [i, index] of indices.entries())
      out.set(x.subarray(index * width, (index + 1) * width), i * width)
  },
  scatter(x, indices, table, width) {
    for (const [i, index] of indices.entries())
      for (let j = 0; j < width; j++) table[index * width + j]! += x[i * width + j]!
  },
  combine(y, places, weights, out, rows, topK, width) {
    for (let slot = 0; slot < rows * topK; slot++) {
      const [from, to] = [places[slot]! * width, Math.floor(slot / topK) * width]
      for (let j = 0; j < width; j++) out[to + j]! += weights[slot]! * y[from + j]!
    }
  },
  spread(d, sources, y, weights, dy, dots, width) {
    for (const [i, source] of sources.entries()) {
      let along = 0
      for (let j = 0; j < width; j++) {
        along += d[source * width + j]! * y[i * width + j]!
        dy[i * width + j] = d[source * width + j]! * weights[i]!
      }
      dots[i] = along
    }
  },
  adamW: adamWTensor,
  squares(tensors) {
    let sum = 0
    for (const tensor of tensors) for (const x of tensor) sum += x * x
    return sum
  },
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x))
}
