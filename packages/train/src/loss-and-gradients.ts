import { familyOf } from '@polygraft/architectures'
import { createRotation } from '@polygraft/model'
import {
  type AttentionShape,
  attention,
  attentionBackward,
  probabilitySize,
  type Segment,
} from './_attention.js'
import { fromHeads, rotate, toHeads } from './_heads.js'
import type { RouterLosses } from './_language-losses.js'
import { linear, linearBackward } from './_linear.js'
import { type MixtureState, mixtureBackward, mixtureForward, softmaxRow } from './_mixture.js'
import { mlpActivations, mlpBackward, mlpForward } from './_mlp.js'
import { rmsNorm, rmsNormBackward } from './_norm.js'
import type { DecoderSpec } from './decoder-spec.js'
import type { Floats } from './matmul.js'
import { bindParameters, type Layer, type Tensors } from './parameters.js'
import { plainWorkspace, type Workspace } from './workspace.js'

/** Documents one after the other; a token sees only its own document. */
export interface Batch {
  readonly tokens: Int32Array
  /** The token that is to come next; -1 where there is no loss. */
  readonly targets: Int32Array
  readonly segments: readonly Segment[]
}

/** Options of `lossAndGradients`. */
export interface LossOptions {
  readonly losses?: RouterLosses
  /** Holds `values` and `gradients` as well. Left out: plain TypeScript in F64, or in F32 where `values` are. */
  readonly workspace?: Workspace
  /** Told the slots of each expert, for every sparse layer. */
  readonly onRouting?: (counts: readonly number[]) => void
}

/**
 * Mean next-token cross-entropy of a decoder over a batch, plus the router losses (mean over layers); adds its gradient to every tensor
 * in `gradients`, and computes no other. `values` are in F32 or F64, and so is everything else.
 */
export function lossAndGradients(
  spec: DecoderSpec,
  values: Tensors,
  gradients: Tensors,
  { tokens, targets, segments }: Batch,
  { losses = { balance: 0, z: 0 }, workspace = plainWorkspace(values), onRouting }: LossOptions = {},
): number {
  const parameters = bindParameters(spec, values, gradients)
  const { hiddenSize: H, headDim: D, numHeads, numKeyValueHeads, eps, topK, normalize } = spec
  const T = tokens.length
  const { matmul, allocate } = workspace
  const begin = workspace.mark()
  const [Q, K] = [numHeads * D, numKeyValueHeads * D]
  const rotation = createRotation(familyOf(spec.config), spec.config)
  const half = Math.ceil(rotation.dimensions / 2)
  const cos = new Float32Array(T * half)
  const sin = new Float32Array(T * half)
  for (const { begin, end } of segments) rotation.write(0, end - begin, end - begin, cos, sin, begin * half)
  const rotations = { cos, sin, dimensions: rotation.dimensions }
  const sizes = { tokens: T, topK, normalize, segments }
  const numSparse = Math.max(1, spec.layers.filter(({ router }) => router).length)

  let h = allocate(T * H)
  for (let t = 0; t < T; t++)
    h.set(parameters.embedding.value.subarray(tokens[t]! * H, (tokens[t]! + 1) * H), t * H)
  let loss = 0
  const states = parameters.layers.map((layer) => {
    const state = forward(layer, h)
    loss += (state.mixture?.loss ?? 0) / numSparse
    if (state.mixture) onRouting?.(state.mixture.counts)
    h = state.output
    return state
  })

  const scales = allocate(T)
  const x = allocate(T * H)
  rmsNorm(h, parameters.finalNorm.value, eps, T, H, x, scales)
  const logits = allocate(T * spec.vocabularySize)
  linear(matmul, parameters.head, T, x, logits)
  loss += crossEntropy(logits, targets, spec.vocabularySize)
  const dx = allocate(T * H)
  linearBackward(matmul, parameters.head, T, x, logits, dx, false)
  const dh = allocate(T * H)
  rmsNormBackward(h, parameters.finalNorm, scales, dx, T, H, dh, false)
  const forwardEnd = workspace.mark()
  for (let i = states.length - 1; i >= 0; i--) {
    backward(parameters.layers[i]!, states[i]!, dh)
    workspace.release(forwardEnd)
  }
  const { gradient } = parameters.embedding
  if (gradient)
    for (let t = 0; t < T; t++) for (let j = 0; j < H; j++) gradient[tokens[t]! * H + j]! += dh[t * H + j]!
  workspace.release(begin)
  return loss

  function copy(x: Floats): Floats {
    const to = allocate(x.length)
    to.set(x)
    return to
  }

  function forward(layer: Layer, input: Floats) {
    const shape: AttentionShape = { tokens: T, numHeads, numKeyValueHeads, headDim: D, window: layer.window }
    const x1 = allocate(T * H)
    const scale1 = allocate(T)
    rmsNorm(input, layer.attentionNorm.value, eps, T, H, x1, scale1)
    const project = (part: Layer['q'], norm: Layer['qNorm'], heads: number, turns: boolean) => {
      const raw = allocate(T * part.out)
      linear(matmul, part, T, x1, raw)
      const scale = allocate(T * heads)
      const normed = norm ? allocate(raw.length) : raw
      if (norm) rmsNorm(raw, norm.value, eps, T * heads, D, normed, scale)
      const rows = allocate(raw.length)
      toHeads(normed, T, heads, D, rows)
      if (turns) rotate(rows, rotations, T, heads, D, 1)
      return { raw, scale, rows }
    }
    const q = project(layer.q, layer.qNorm, numHeads, true)
    const k = project(layer.k, layer.kNorm, numKeyValueHeads, true)
    const v = project(layer.v, undefined, numKeyValueHeads, false)
    const p = allocate(probabilitySize(segments, numHeads))
    const heads = allocate(T * Q)
    attention(matmul, shape, segments, q.rows, k.rows, v.rows, p, heads)
    const o = allocate(T * Q)
    fromHeads(heads, T, numHeads, D, o)
    const middle = copy(input)
    linear(matmul, layer.o, T, o, middle, true)
    const x2 = allocate(T * H)
    const scale2 = allocate(T)
    rmsNorm(middle, layer.ffnNorm.value, eps, T, H, x2, scale2)
    const output = copy(middle)
    let mixture: MixtureState | undefined
    if (layer.router) mixture = mixtureForward(matmul, allocate, layer, sizes, losses, x2, output)
    const mlp = layer.mlp ?? layer.shared
    const size = T * (mlp?.gate.out ?? 0)
    const dense = { ...mlpActivations(allocate, size), y: allocate(T * H), open: allocate(T) }
    if (mlp) mlpForward(matmul, mlp, T, x2, dense, dense.y, false)
    if (layer.shared) linear(matmul, layer.shared.scale, T, x2, dense.open)
    for (let t = 0; mlp && t < T; t++) {
      dense.open[t] = layer.shared ? 1 / (1 + Math.exp(-dense.open[t]!)) : 1
      for (let j = 0; j < H; j++) output[t * H + j]! += dense.open[t]! * dense.y[t * H + j]!
    }
    return { shape, input, x1, scale1, q, k, v, p, o, middle, x2, scale2, mixture, dense, output }
  }

  function backward(layer: Layer, state: ReturnType<typeof forward>, d: Floats): void {
    const { dense, x1, x2, q, k, v } = state
    const dx2 = allocate(T * H)
    if (state.mixture)
      mixtureBackward(matmul, allocate, layer, sizes, losses, 1 / numSparse, state.mixture, x2, d, dx2)
    const mlp = layer.mlp ?? layer.shared
    if (mlp) {
      const dy = allocate(T * H)
      const dOpen = allocate(T)
      for (let t = 0; t < T; t++) {
        const open = dense.open[t]!
        for (let j = 0; j < H; j++) {
          dy[t * H + j] = open * d[t * H + j]!
          dOpen[t]! += d[t * H + j]! * dense.y[t * H + j]! * open * (1 - open)
        }
      }
      if (layer.shared) linearBackward(matmul, layer.shared.scale, T, x2, dOpen, dx2, true)
      mlpBackward(matmul, mlp, T, x2, dense, dy, dx2, allocate(T * mlp.gate.out))
    }
    rmsNormBackward(state.middle, layer.ffnNorm, state.scale2, dx2, T, H, d, true)
    const dO = allocate(T * Q)
    linearBackward(matmul, layer.o, T, state.o, d, dO, false)
    const dHeads = allocate(T * Q)
    toHeads(dO, T, numHeads, D, dHeads)
    const [dq, dk, dv] = [allocate(T * Q), allocate(T * K), allocate(T * K)]
    const longest = Math.max(...segments.map(({ begin, end }) => end - begin))
    const scratch = allocate(longest * longest)
    attentionBackward(
      matmul,
      state.shape,
      segments,
      q.rows,
      k.rows,
      v.rows,
      state.p,
      dHeads,
      dq,
      dk,
      dv,
      scratch,
    )
    const dx1 = allocate(T * H)
    const unproject = (
      part: Layer['q'],
      norm: Layer['qNorm'],
      from: typeof q,
      rows: Floats,
      heads: number,
      turns: boolean,
    ) => {
      if (turns) rotate(rows, rotations, T, heads, D, -1)
      const dNormed = allocate(rows.length)
      fromHeads(rows, T, heads, D, dNormed)
      const dRaw = norm ? allocate(rows.length) : dNormed
      if (norm) rmsNormBackward(from.raw, norm, from.scale, dNormed, T * heads, D, dRaw, false)
      linearBackward(matmul, part, T, x1, dRaw, dx1, true)
    }
    unproject(layer.q, layer.qNorm, q, dq, numHeads, true)
    unproject(layer.k, layer.kNorm, k, dk, numKeyValueHeads, true)
    unproject(layer.v, undefined, v, dv, numKeyValueHeads, false)
    rmsNormBackward(state.input, layer.attentionNorm, state.scale1, dx1, T, H, d, true)
  }
}

/** Mean over the rows with a target; `logits` become their gradient. 0 where no row has one. */
function crossEntropy(logits: Floats, targets: Int32Array, width: number): number {
  const count = targets.reduce((sum, target) => sum + Number(target >= 0), 0)
  let loss = 0
  for (let t = 0; t < targets.length; t++) {
    const row = logits.subarray(t * width, (t + 1) * width)
    const target = targets[t]!
    if (target < 0) {
      row.fill(0)
      continue
    }
    const right = row[target]!
    loss += (softmaxRow(row, row) - right) / count
    row[target]! -= 1
    for (let j = 0; j < width; j++) row[j]! /= count
  }
  return loss
}
