import type { AttentionShape, DocumentTable } from './_attention.js'
import type { Rotations } from './_heads.js'
import type { RouterLosses } from './_language-losses.js'
import { linear, linearBackward } from './_linear.js'
import { type MixtureSizes, type MixtureState, mixtureBackward, mixtureForward } from './_mixture.js'
import { mlpActivations, mlpBackward, mlpForward } from './_mlp.js'
import { normGradients } from './_norm.js'
import type { DecoderSpec } from './decoder-spec.js'
import type { Floats } from './matmul.js'
import type { Layer, Linear, Vector } from './parameters.js'
import type { Workspace } from './workspace.js'

/** What every layer of a pass shares. */
export interface Pass {
  readonly spec: DecoderSpec
  readonly workspace: Workspace
  readonly sizes: MixtureSizes
  readonly losses: RouterLosses
  /** Of a layer's router losses in the whole loss: they are a mean over sparse layers. */
  readonly share: number
  readonly rotations: Rotations
  readonly documents: DocumentTable
  /** 0 to T - 1. */
  readonly tokens: Int32Array
}

/** Which of a layer's gradients are needed, from the top down. */
export interface Needed {
  /** That by the input of its feed-forward part: something below it is trained, or its norm. */
  readonly feedForwardInput: boolean
  /** Those of its attention: something of that, or below the layer, is trained. */
  readonly attention: boolean
  /** That by the layer's input. */
  readonly input: boolean
}

/** @param below Whether anything below the layer is trained. */
export function neededOf(layer: Layer, below: boolean): Needed {
  const { attentionNorm, q, k, v, o, qNorm, kNorm, ffnNorm } = layer
  const vectors = [attentionNorm, qNorm, kNorm, ...[q, k, v, o].flatMap(({ weight, bias }) => [weight, bias])]
  const attention = below || vectors.some((vector) => vector?.gradient)
  const input = below
  return { input, attention, feedForwardInput: attention || ffnNorm.gradient !== undefined }
}

/** Whether anything of a layer is trained. */
export function isTrained(layer: Layer): boolean {
  const mlps = [layer.mlp, layer.shared, ...(layer.experts ?? [])]
  const linears = [
    layer.router,
    layer.shared?.scale,
    ...mlps.flatMap((mlp) => [mlp?.gate, mlp?.up, mlp?.down]),
  ]
  const vectors = linears.flatMap((each) => [each?.weight, each?.bias])
  return neededOf(layer, false).feedForwardInput || vectors.some((vector) => vector?.gradient)
}

type LayerState = ReturnType<typeof layerForward>

/** One decoder layer on rows [T, H]; keeps what its gradients need. */
export function layerForward(pass: Pass, layer: Layer, input: Floats) {
  const { spec, workspace, sizes, losses } = pass
  const { hiddenSize: H, headDim: D, numHeads, numKeyValueHeads, eps } = spec
  const { compute, allocate } = workspace
  const { tokens: T } = sizes
  const shape: AttentionShape = { numHeads, numKeyValueHeads, headDim: D, window: layer.window }
  const x1 = allocate(T * H)
  const scale1 = allocate(T)
  compute.norm(input, layer.attentionNorm.value, eps, T, H, x1, scale1)
  const project = (part: Linear, norm: Vector | undefined, heads: number, turns: boolean) => {
    const raw = allocate(T * part.out)
    linear(compute, part, T, x1, raw)
    const scale = allocate(norm ? T * heads : 0)
    const rows = norm ? allocate(raw.length) : raw
    if (norm) compute.norm(raw, norm.value, eps, T * heads, D, rows, scale)
    if (turns) compute.rotate(rows, pass.rotations, T, heads, D, 1)
    return { raw, scale, rows }
  }
  const q = project(layer.q, layer.qNorm, numHeads, true)
  const k = project(layer.k, layer.kNorm, numKeyValueHeads, true)
  const v = project(layer.v, undefined, numKeyValueHeads, false)
  const p = allocate(pass.documents.size)
  const o = allocate(T * numHeads * D)
  compute.attention(shape, pass.documents, q.rows, k.rows, v.rows, p, o)
  const middle = allocate(T * H)
  compute.copy(input, middle)
  linear(compute, layer.o, T, o, middle, true)
  const x2 = allocate(T * H)
  const scale2 = allocate(T)
  compute.norm(middle, layer.ffnNorm.value, eps, T, H, x2, scale2)
  const output = allocate(T * H)
  compute.copy(middle, output)
  let mixture: MixtureState | undefined
  if (layer.router) mixture = mixtureForward(workspace, layer, sizes, losses, x2, output)
  const mlp = layer.mlp ?? layer.shared
  const dense = mlpActivations(allocate, T * (mlp?.gate.out ?? 0))
  if (layer.mlp) mlpForward(compute, layer.mlp, T, x2, dense, output, true)
  const shared = layer.shared ? sharedForward(pass, layer.shared, x2, dense, output) : undefined
  return { shape, input, x1, scale1, q, k, v, p, o, middle, x2, scale2, mixture, dense, shared, output }
}

type Shared = NonNullable<Layer['shared']>

/** Adds sigmoid(scale(x)) mlp(x). */
function sharedForward(
  { workspace, sizes, tokens }: Pass,
  shared: Shared,
  x: Floats,
  activations: ReturnType<typeof mlpActivations>,
  output: Floats,
) {
  const { compute, allocate } = workspace
  const T = sizes.tokens
  const y = allocate(output.length)
  const open = allocate(T)
  mlpForward(compute, shared, T, x, activations, y, false)
  linear(compute, shared.scale, T, x, open)
  compute.flush()
  for (let t = 0; t < T; t++) open[t] = 1 / (1 + Math.exp(-open[t]!))
  compute.combine(y, tokens, open, output, T, 1, output.length / T)
  return { y, open }
}

/** Adds the gradients of what is trained; `d`, by the output, becomes that by the input where that is needed. */
export function layerBackward(pass: Pass, layer: Layer, state: LayerState, needed: Needed, d: Floats): void {
  feedForwardBackward(pass, layer, state, needed, d)
  if (needed.attention) attentionPartBackward(pass, layer, state, needed, d)
}

function feedForwardBackward(pass: Pass, layer: Layer, state: LayerState, needed: Needed, d: Floats): void {
  const { workspace, sizes, losses, share } = pass
  const { compute, allocate } = workspace
  const { hiddenSize: H } = pass.spec
  const { tokens: T } = sizes
  const { dense, x2, shared } = state
  const dx = needed.feedForwardInput ? allocate(T * H) : undefined
  if (dx) compute.clear(dx)
  if (state.mixture) mixtureBackward(workspace, layer, sizes, losses, share, state.mixture, x2, d, dx)
  if (layer.mlp) mlpBackward(compute, layer.mlp, T, x2, dense, d, dx, allocate(dense.hidden.length))
  if (layer.shared && shared) {
    const dy = allocate(T * H)
    const dOpen = allocate(T)
    compute.spread(d, pass.tokens, shared.y, shared.open, dy, dOpen, H)
    compute.flush()
    for (let t = 0; t < T; t++) dOpen[t]! *= shared.open[t]! * (1 - shared.open[t]!)
    linearBackward(compute, layer.shared.scale, T, x2, dOpen, dx, true)
    mlpBackward(compute, layer.shared, T, x2, dense, dy, dx, allocate(dense.hidden.length))
  }
  const below = needed.attention ? d : undefined
  if (dx) normGradients(compute, state.middle, layer.ffnNorm, state.scale2, dx, T, H, below, true)
}

function attentionPartBackward(pass: Pass, layer: Layer, state: LayerState, needed: Needed, d: Floats): void {
  const { compute, allocate } = pass.workspace
  const { hiddenSize: H, headDim: D, numHeads, numKeyValueHeads } = pass.spec
  const { tokens: T } = pass.sizes
  const { q, k, v, x1 } = state
  const dO = allocate(T * numHeads * D)
  linearBackward(compute, layer.o, T, state.o, d, dO, false)
  const [dq, dk, dv] = [allocate(dO.length), allocate(k.rows.length), allocate(v.rows.length)]
  compute.clear(dk)
  compute.clear(dv)
  compute.attentionBackward(
    state.shape,
    pass.documents,
    ...([q.rows, k.rows, v.rows, state.p, dO, dq, dk, dv] as const),
  )
  const isNeeded = needed.input || layer.attentionNorm.gradient
  const dx = isNeeded ? allocate(T * H) : undefined
  if (dx) compute.clear(dx)
  const unproject = (part: Linear, norm: Vector | undefined, from: typeof q, rows: Floats, heads: number) => {
    const dRaw = norm ? allocate(rows.length) : rows
    if (norm) normGradients(compute, from.raw, norm, from.scale, rows, T * heads, D, dRaw, false)
    linearBackward(compute, part, T, x1, dRaw, dx, true)
  }
  compute.rotate(dq, pass.rotations, T, numHeads, D, -1)
  compute.rotate(dk, pass.rotations, T, numKeyValueHeads, D, -1)
  unproject(layer.q, layer.qNorm, q, dq, numHeads)
  unproject(layer.k, layer.kNorm, k, dk, numKeyValueHeads)
  unproject(layer.v, undefined, v, dv, numKeyValueHeads)
  const below = needed.input ? d : undefined
  if (dx) normGradients(compute, state.input, layer.attentionNorm, state.scale1, dx, T, H, below, true)
}
