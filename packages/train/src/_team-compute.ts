import type { Team } from '@polygraft/engine'
import {
  encodeInstruction,
  type Operands,
  type OperationName,
  PRODUCT_FORMS,
  type Product,
  probabilityStride,
  SQUARES_BLOCK,
} from '@polygraft/kernels'
import type { AttentionShape, DocumentTable } from './_attention.js'
import type { Compute } from './compute.js'
import type { Floats } from './matmul.js'

/** Of a workspace: where it computes. */
interface Memory {
  allocate(length: number): Floats
  mark(): number
  release(mark: number): void
}

/** The computation in F32 by a team's threads, SIMD all of it. No bit of a result depends on how many there are. */
export function teamCompute(team: Team, memory: Memory): Compute {
  let queue: number[][] = []
  const add = <Name extends OperationName>(name: Name, operands: Operands<Name>) => {
    queue.push(encodeInstruction(name, operands))
  }

  function flush(): void {
    const instructions = queue
    queue = []
    if (instructions.length > 0) team.run(instructions)
  }

  const multiply =
    (form: Product['form']) =>
    (...[m, n, k, a, b, c, adds]: Parameters<Compute['nt']>) => {
      if (m * n * k === 0) return
      const places = { a: a.byteOffset, b: b.byteOffset, c: c.byteOffset }
      add('product', { form: PRODUCT_FORMS.indexOf(form), m, n, k, ...places, adds: Number(adds) })
    }

  return {
    flush,
    nt: multiply('NT'),
    nn: multiply('NN'),
    tn: multiply('TN'),
    addBias: (x, bias, rows, columns) =>
      add('addBias', { bias: bias.byteOffset, x: x.byteOffset, rows, columns }),
    addColumns: (sums, x, rows, columns) =>
      add('addColumns', { x: x.byteOffset, sums: sums.byteOffset, rows, columns }),
    clear: (x) => add('clear', { x: x.byteOffset, count: x.length }),
    copy: (x, out) => add('copy', { x: x.byteOffset, out: out.byteOffset, count: x.length }),
    norm(x, weight, eps, rows, width, y, scales) {
      const places = { x: x.byteOffset, weight: weight.byteOffset, y: y.byteOffset }
      add('trainingNorm', { ...places, scales: scales.byteOffset, rows, width, eps })
    },
    normBackward(x, weight, scales, dy, rows, width, dx, adds) {
      const places = { x: x.byteOffset, weight: weight.byteOffset, scales: scales.byteOffset }
      const gradients = { dy: dy.byteOffset, dx: dx.byteOffset }
      add('normBackward', { ...places, ...gradients, rows, width, adds: Number(adds) })
    },
    normWeightGradient(x, scales, dy, rows, width, gradient) {
      const places = { x: x.byteOffset, scales: scales.byteOffset, dy: dy.byteOffset }
      add('normWeightGradient', { ...places, gradient: gradient.byteOffset, rows, width })
    },
    silu(gate, up, hidden) {
      const places = { gate: gate.byteOffset, up: up.byteOffset, hidden: hidden.byteOffset }
      add('silu', { ...places, count: hidden.length })
    },
    siluBackward(gate, up, dHidden) {
      const places = { gate: gate.byteOffset, up: up.byteOffset, dHidden: dHidden.byteOffset }
      add('siluBackward', { ...places, count: dHidden.length })
    },
    rotate(x, { cos, sin, dimensions }, rows, heads, headDim, direction) {
      const places = { x: x.byteOffset, cos: cos.byteOffset, sin: sin.byteOffset }
      const sizes = { rows, heads, headDim, rotated: dimensions }
      add('rotate', { ...places, ...sizes, isBack: Number(direction < 0) })
    },
    attention(shape, documents, q, k, v, p, o) {
      add('attendDocuments', { ...attentionOperands(shape, documents, q, k, v, p), o: o.byteOffset })
    },
    attentionBackward(shape, documents, q, k, v, p, dO, dq, dk, dv) {
      const size = documents.longest * probabilityStride(documents.longest)
      const mark = memory.mark()
      const scratch = memory.allocate(size * team.threads)
      // Used before anything that is asked for later, so whoever is given it next does not mind.
      memory.release(mark)
      add('attendDocumentsBackward', {
        ...attentionOperands(shape, documents, q, k, v, p),
        ...{ dO: dO.byteOffset, dq: dq.byteOffset, dk: dk.byteOffset, dv: dv.byteOffset },
        ...{ scratch: scratch.byteOffset, scratchBytes: size * 4 },
      })
    },
    weightedSoftmax(x, weights, stats, rows, width) {
      const places = { x: x.byteOffset, weights: weights.byteOffset, stats: stats.byteOffset }
      add('weightedSoftmax', { ...places, rows, width })
    },
    gather(x, indices, out, width) {
      const places = { x: x.byteOffset, indices: indices.byteOffset, out: out.byteOffset }
      add('gatherRows', { ...places, count: indices.length, width })
    },
    scatter(x, indices, table, width) {
      const places = { x: x.byteOffset, indices: indices.byteOffset, table: table.byteOffset }
      add('scatterRows', { ...places, count: indices.length, width })
    },
    combine(y, places, weights, out, rows, topK, width) {
      const operands = { y: y.byteOffset, places: places.byteOffset, weights: weights.byteOffset }
      add('combineRows', { ...operands, out: out.byteOffset, rows, topK, width })
    },
    spread(d, sources, y, weights, dy, dots, width) {
      const operands = { d: d.byteOffset, sources: sources.byteOffset, y: y.byteOffset }
      const results = { weights: weights.byteOffset, dy: dy.byteOffset, dots: dots.byteOffset }
      add('spreadRows', { ...operands, ...results, count: sources.length, width })
    },
    adamW(value, gradient, first, second, step) {
      const places = { value: value.byteOffset, gradient: gradient.byteOffset }
      const moments = { first: first.byteOffset, second: second.byteOffset }
      add('adamW', { ...places, ...moments, count: value.length, ...step })
    },
    squares(tensors) {
      const mark = memory.mark()
      const blocks = tensors.map(({ length }) => Math.ceil(length / SQUARES_BLOCK))
      const total = blocks.reduce((sum, count) => sum + count, 0)
      const { buffer, byteOffset } = memory.allocate(total * 2)
      const sums = new Float64Array(buffer, byteOffset, total)
      let at = sums.byteOffset
      for (const [i, x] of tensors.entries()) {
        add('squares', { x: x.byteOffset, count: x.length, sums: at })
        at += blocks[i]! * 8
      }
      flush()
      memory.release(mark)
      return sums.reduce((sum, squares) => sum + squares, 0)
    },
  }
}

function attentionOperands(
  { numHeads: heads, numKeyValueHeads: keyValueHeads, headDim, window }: AttentionShape,
  { count, words, longest }: DocumentTable,
  q: Floats,
  k: Floats,
  v: Floats,
  p: Floats,
) {
  const places = { q: q.byteOffset, k: k.byteOffset, v: v.byteOffset, p: p.byteOffset }
  const documents = { segments: words.byteOffset, numSegments: count, window: Math.min(window, longest) }
  return { ...places, ...documents, heads, keyValueHeads, headDim, scale: 1 / Math.sqrt(headDim) }
}
