import { exponentialF32 } from './_exponential.js'
import type { KernelMemory } from './_wasm-run.js'
import { adamWNumbers, type TrainingLoops } from './training-loops.js'

const f = Math.fround

/** The loops of training in plain TypeScript: what the SIMD loops give to the bit, at any width. */
export function referenceTrainingLoops(memory: KernelMemory): TrainingLoops {
  /** `count` elements from an address on. */
  const at = (address: number, count: number) => new Float32Array(memory.buffer, address, count)
  const words = (address: number, count: number) => new Uint32Array(memory.buffer, address, count)
  const row = (address: number, i: number, width: number) => at(address + i * width * 4, width)

  return {
    clear(x, count) {
      at(x, count).fill(0)
    },
    copy(x, out, count) {
      at(out, count).set(at(x, count))
    },
    norm(x, weight, y, scales, rows, width, eps) {
      const w = at(weight, width)
      for (let i = 0; i < rows; i++) {
        const [from, to] = [row(x, i, width), row(y, i, width)]
        const mean = f(laneSum(width, (j) => f(from[j]! * from[j]!)) / width)
        const r = f(1 / f(Math.sqrt(f(mean + f(eps)))))
        at(scales, rows)[i] = r
        for (let j = 0; j < width; j++) to[j] = f(from[j]! * r) * w[j]!
      }
    },
    normBackward(x, weight, scales, dy, dx, rows, width, adds) {
      const w = at(weight, width)
      for (let i = 0; i < rows; i++) {
        const [from, d, to] = [row(x, i, width), row(dy, i, width), row(dx, i, width)]
        const r = at(scales, rows)[i]!
        const along = laneSum(width, (j) => f(f(d[j]! * w[j]!) * from[j]!))
        const back = f(f(f(f(along * r) * r) * r) / width)
        for (let j = 0; j < width; j++) {
          const change = f(f(f(d[j]! * w[j]!) * r) - f(from[j]! * back))
          to[j] = adds ? to[j]! + change : change
        }
      }
    },
    silu(gate, up, hidden, count) {
      const [g, u, h] = [at(gate, count), at(up, count), at(hidden, count)]
      for (let i = 0; i < count; i++) h[i] = f(g[i]! * sigmoid(g[i]!)) * u[i]!
    },
    siluBackward(gate, up, dHidden, count) {
      const [g, u, d] = [at(gate, count), at(up, count), at(dHidden, count)]
      for (let i = 0; i < count; i++) {
        const s = sigmoid(g[i]!)
        const silu = f(g[i]! * s)
        const slope = f(s + f(silu * f(1 - s)))
        g[i] = f(d[i]! * u[i]!) * slope
        u[i] = d[i]! * silu
      }
    },
    causalSoftmax(scores, rows, stride, window, scale) {
      for (let i = 0; i < rows; i++) {
        const x = row(scores, i, stride)
        const isSeen = (j: number) => j <= i && j > i - window
        const most = x.reduce((high, value, j) => (isSeen(j) ? Math.max(high, value) : high), -Infinity)
        for (let j = 0; j < stride; j++) x[j] = isSeen(j) ? exponentialF32(f(f(x[j]! - most) * f(scale))) : 0
        const by = f(1 / laneSum(stride, (j) => x[j]!))
        for (let j = 0; j < stride; j++) x[j]! *= by
      }
    },
    softmaxBackward(p, dp, rows, stride, scale) {
      for (let i = 0; i < rows; i++) {
        const [own, d] = [row(p, i, stride), row(dp, i, stride)]
        const end = i - (i % 4) + 4
        const along = laneSum(end, (j) => f(own[j]! * d[j]!))
        for (let j = 0; j < stride; j++) d[j] = j < end ? f(own[j]! * f(d[j]! - along)) * f(scale) : 0
      }
    },
    weightedSoftmax(x, rows, width, weights, stats) {
      for (let i = 0; i < rows; i++) {
        const own = row(x, i, width)
        const most = own.reduce((high, value) => Math.max(high, value), -Infinity)
        for (let j = 0; j < width; j++) own[j] = exponentialF32(f(own[j]! - most))
        const sum = laneSum(width, (j) => own[j]!)
        row(stats, i, 2).set([most, sum])
        const by = f(at(weights, rows)[i]! / sum)
        for (let j = 0; j < width; j++) own[j]! *= by
      }
    },
    rotate(x, cos, sin, rows, heads, headDim, rotated, isBack) {
      const half = rotated / 2
      for (let i = 0; i < rows * heads; i++) {
        const own = row(x, i, headDim)
        const angles = Math.floor(i / heads)
        const [c, s] = [row(cos, angles, half), row(sin, angles, half)]
        for (let j = 0; j < half; j++) {
          const [a, b] = [own[j]!, own[half + j]!]
          const turn = isBack ? -s[j]! : s[j]!
          own[j] = f(a * c[j]!) - f(b * turn)
          own[half + j] = f(b * c[j]!) + f(a * turn)
        }
      }
    },
    gather(x, indices, out, count, width) {
      const own = words(indices, count)
      for (let i = 0; i < count; i++) row(out, i, width).set(row(x, own[i]!, width))
    },
    combine(y, places, weights, out, rows, topK, width) {
      const [place, weight] = [words(places, rows * topK), at(weights, rows * topK)]
      for (let slot = 0; slot < rows * topK; slot++) {
        const [to, from] = [row(out, Math.floor(slot / topK), width), row(y, place[slot]!, width)]
        for (let j = 0; j < width; j++) to[j]! += f(weight[slot]! * from[j]!)
      }
    },
    spread(d, sources, y, weights, dy, dots, count, width) {
      const [source, weight, dot] = [words(sources, count), at(weights, count), at(dots, count)]
      for (let i = 0; i < count; i++) {
        const [from, own, to] = [row(d, source[i]!, width), row(y, i, width), row(dy, i, width)]
        dot[i] = laneSum(width, (j) => f(from[j]! * own[j]!))
        for (let j = 0; j < width; j++) to[j] = from[j]! * weight[i]!
      }
    },
    adamW(value, gradient, first, second, count, scalars) {
      const [x, d, m, v] = [value, gradient, first, second].map((address) => at(address, count))
      const [factor, b1, rest1, b2, rest2, keep, size, root, eps] = adamWNumbers(scalars).map(f)
      for (let i = 0; i < count; i++) {
        const g = f(d![i]! * factor!)
        const mean = f(f(b1! * m![i]!) + f(rest1! * g))
        const square = f(f(b2! * v![i]!) + f(f(rest2! * g) * g))
        m![i] = mean
        v![i] = square
        const spread = f(f(f(Math.sqrt(square)) / root!) + eps!)
        x![i] = f(x![i]! * keep!) - f(f(size! * mean) / spread)
      }
    },
    squares(x, count) {
      const lanes = new Float64Array(4)
      at(x, count).forEach((value, i) => {
        lanes[i % 4]! += value * value
      })
      return lanes[0]! + lanes[1]! + (lanes[2]! + lanes[3]!)
    },
  }
}

/** The sum of `count` values in F32, as SIMD takes it. */
function laneSum(count: number, value: (i: number) => number): number {
  const lanes = new Float32Array(4)
  for (let i = 0; i < count; i++) lanes[i % 4]! += value(i)
  return f(f(lanes[0]! + lanes[1]!) + f(lanes[2]! + lanes[3]!))
}

function sigmoid(x: number): number {
  return f(1 / f(1 + exponentialF32(-x)))
}
