import { familyOf } from '@polygraft/architectures'
import { createRotation } from '@polygraft/model'
import { documentTable, type Segment } from './_attention.js'
import type { Rotations } from './_heads.js'
import type { RouterLosses } from './_language-losses.js'
import { isTrained, layerBackward, layerForward, neededOf, type Pass } from './_layer.js'
import { linear, linearBackward } from './_linear.js'
import { normGradients } from './_norm.js'
import type { DecoderSpec } from './decoder-spec.js'
import type { Floats } from './matmul.js'
import { bindParameters, type Parameters, type Tensors } from './parameters.js'
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
  const { hiddenSize: H, topK, normalize } = spec
  const T = tokens.length
  const { compute, allocate, allocateWords } = workspace
  compute.flush()
  const begin = workspace.mark()
  const words = (from: Int32Array) => {
    const to = allocateWords(from.length)
    to.set(from)
    return to
  }
  const ids = words(tokens)
  const pass: Pass = {
    ...{ spec, workspace, losses },
    sizes: { tokens: T, topK, normalize, segments },
    share: 1 / Math.max(1, spec.layers.filter(({ router }) => router).length),
    rotations: rotationsOf(spec, segments, T, workspace),
    documents: documentTable(segments, spec.numHeads, allocateWords),
    tokens: words(tokens.map((_, t) => t)),
  }
  let h = allocate(T * H)
  compute.gather(parameters.embedding.value, ids, h, H)
  let loss = 0
  const states = parameters.layers.map((layer) => {
    const state = layerForward(pass, layer, h)
    loss += (state.mixture?.loss ?? 0) * pass.share
    if (state.mixture) onRouting?.(state.mixture.counts)
    h = state.output
    return state
  })
  const dh = allocate(T * H)
  loss += headLoss(pass, parameters, h, targets, dh)
  const forwardEnd = workspace.mark()
  const { gradient } = parameters.embedding
  const lowest = lowestTrained(parameters)
  for (let i = states.length - 1; i >= Math.max(0, lowest); i--) {
    const layer = parameters.layers[i]!
    layerBackward(pass, layer, states[i]!, neededOf(layer, lowest < i), dh)
    workspace.release(forwardEnd)
  }
  if (gradient) compute.scatter(dh, ids, gradient, H)
  compute.flush()
  workspace.release(begin)
  return loss
}

/** The lowest layer of which something is trained; -1 where the embedding is, the number of layers where nothing is. */
function lowestTrained({ embedding, layers }: Parameters): number {
  const first = layers.findIndex(isTrained)
  return embedding.gradient ? -1 : first < 0 ? layers.length : first
}

/** The loss of the last layer's output `h`; its gradient by it to `dh`. */
function headLoss(
  { spec, workspace, sizes }: Pass,
  { finalNorm, head }: Parameters,
  h: Floats,
  targets: Int32Array,
  dh: Floats,
): number {
  const { compute, allocate } = workspace
  const { hiddenSize: H, vocabularySize, eps } = spec
  const T = sizes.tokens
  const scales = allocate(T)
  const x = allocate(T * H)
  compute.norm(h, finalNorm.value, eps, T, H, x, scales)
  const logits = allocate(T * vocabularySize)
  linear(compute, head, T, x, logits)
  const loss = crossEntropy(workspace, logits, targets, vocabularySize)
  const dx = allocate(T * H)
  linearBackward(compute, head, T, x, logits, dx, false)
  normGradients(compute, h, finalNorm, scales, dx, T, H, dh, false)
  return loss
}

/** Mean over the rows with a target; `logits` become their gradient. 0 where no row has one. */
function crossEntropy(
  { compute, allocate }: Workspace,
  logits: Floats,
  targets: Int32Array,
  width: number,
): number {
  const count = targets.reduce((sum, target) => sum + Number(target >= 0), 0)
  const stats = allocate(targets.length * 2)
  const weights = allocate(targets.length)
  compute.flush()
  const right = Array.from(targets, (target, t) => (target < 0 ? 0 : logits[t * width + target]!))
  for (const [t, target] of targets.entries()) weights[t] = target < 0 ? 0 : 1 / count
  compute.weightedSoftmax(logits, weights, stats, targets.length, width)
  compute.flush()
  let loss = 0
  for (const [t, target] of targets.entries()) {
    if (target < 0) continue
    loss += (stats[t * 2]! + Math.log(stats[t * 2 + 1]!) - right[t]!) / count
    logits[t * width + target]! -= weights[t]!
  }
  return loss
}

/** Angles of every token; documents of one length have the same. */
function rotationsOf(
  { config }: DecoderSpec,
  segments: readonly Segment[],
  tokens: number,
  { allocate }: Workspace,
): Rotations {
  const rotation = createRotation(familyOf(config), config)
  const half = Math.ceil(rotation.dimensions / 2)
  const [cos, sin] = [allocate(tokens * half), allocate(tokens * half)]
  const known = new Map<number, readonly [Float32Array, Float32Array]>()
  const anglesOf = (length: number) => {
    const angles = [new Float32Array(length * half), new Float32Array(length * half)] as const
    rotation.write(0, length, length, ...angles, 0)
    known.set(length, angles)
    return angles
  }
  for (const { begin, end } of segments) {
    const [c, s] = known.get(end - begin) ?? anglesOf(end - begin)
    cos.set(c, begin * half)
    sin.set(s, begin * half)
  }
  return { cos, sin, dimensions: rotation.dimensions }
}
