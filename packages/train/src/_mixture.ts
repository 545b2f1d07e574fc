import type { Segment } from './_attention.js'
import { languageLosses, type RouterLosses } from './_language-losses.js'
import { linear, linearBackward } from './_linear.js'
import { type MlpActivations, mlpActivations } from './_mlp.js'
import { chooseExperts, type Routing, routingBackward } from './_routing.js'
import type { Floats } from './matmul.js'
import type { Layer, Mlp } from './parameters.js'
import type { Workspace } from './workspace.js'

export interface MixtureSizes {
  readonly tokens: number
  readonly topK: number
  readonly normalize: boolean
  readonly segments: readonly Segment[]
}

/** What the backward pass of a mixture needs. Rows of x and y, and of the activations, are pairs: slots grouped by expert. */
export interface MixtureState {
  readonly logits: Floats
  readonly routing: Routing
  readonly x: Floats
  readonly y: Floats
  readonly activations: MlpActivations
  /** Slots of each expert. */
  readonly counts: readonly number[]
  readonly loss: number
}

type Part = 'gate' | 'up' | 'down'

/** Calls `run` with each expert that has pairs, how many, and a view of its rows of a matrix of `width` columns. */
function forEachExpert(
  experts: readonly Mlp[],
  { offsets }: Routing,
  run: (mlp: Mlp, rows: number, of: (x: Floats, width: number) => Floats) => void,
): void {
  for (const [e, mlp] of experts.entries()) {
    const [begin, end] = [offsets[e]!, offsets[e + 1]!]
    if (begin < end) run(mlp, end - begin, (x, width) => x.subarray(begin * width, end * width))
  }
}

/** Adds each token's k chosen experts to `out`. Only these are computed. */
export function mixtureForward(
  { compute, ...memory }: Workspace,
  layer: Layer,
  { tokens, topK, normalize, segments }: MixtureSizes,
  losses: RouterLosses,
  x: Floats,
  out: Floats,
): MixtureState {
  const [router, experts] = [layer.router!, layer.experts!]
  const { out: numExperts, in: width } = router
  const { allocate } = memory
  const logits = allocate(tokens * numExperts)
  linear(compute, router, tokens, x, logits)
  compute.flush()
  const routing = chooseExperts(memory, logits, numExperts, topK, normalize)
  const { probabilities, sources, places, weights, offsets, z, balance } = routing
  const pairs = sources.length
  const inner = experts[0]!.gate.out
  const own = allocate(pairs * width)
  const y = allocate(pairs * width)
  const activations = mlpActivations(allocate, pairs * inner)
  compute.gather(x, sources, own, width)
  const through = (part: Part, from: Floats, to: Floats) =>
    forEachExpert(experts, routing, (mlp, rows, of) =>
      linear(compute, mlp[part], rows, of(from, mlp[part].in), of(to, mlp[part].out)),
    )
  through('gate', own, activations.gate)
  through('up', own, activations.up)
  compute.silu(activations.gate, activations.up, activations.hidden)
  through('down', activations.hidden, y)
  compute.combine(y, places, weights, out, tokens, topK, width)
  return {
    ...{ logits, routing, x: own, y, activations },
    counts: Array.from({ length: numExperts }, (_, e) => offsets[e + 1]! - offsets[e]!),
    loss:
      losses.balance * balance +
      (losses.z * z) / tokens +
      languageLosses(losses, segments, numExperts, logits, probabilities),
  }
}

/**
 * Adds to dx, unless it is left out, and to the gradients of experts and router. `share`: the part of the whole loss that this layer's
 * router losses have.
 */
export function mixtureBackward(
  { compute, allocate }: Workspace,
  layer: Layer,
  { tokens, topK, normalize, segments }: MixtureSizes,
  losses: RouterLosses,
  share: number,
  { logits, routing, x: own, y, activations }: MixtureState,
  x: Floats,
  dOut: Floats,
  dx: Floats | undefined,
): void {
  const [router, experts] = [layer.router!, layer.experts!]
  const { out: numExperts, in: width } = router
  const { sources, places, pairWeights, probabilities } = routing
  const dots = allocate(sources.length)
  const dy = allocate(sources.length * width)
  const dLogits = allocate(logits.length)
  const ones = allocate(sources.length)
  compute.spread(dOut, sources, y, pairWeights, dy, dots, width)
  compute.flush()
  const weights = { balance: share * losses.balance, z: share * losses.z }
  routingBackward(routing, logits, dots, topK, normalize, weights, dLogits)
  languageLosses(losses, segments, numExperts, logits, probabilities, dLogits, share)
  ones.fill(1)
  linearBackward(compute, router, tokens, x, dLogits, dx, true)

  const isTrained = (part: Part) =>
    experts.some((mlp) => mlp[part].weight.gradient || mlp[part].bias?.gradient)
  if (!dx && !isTrained('gate') && !isTrained('up') && !isTrained('down')) return
  const { gate, up, hidden } = activations
  const dHidden = allocate(hidden.length)
  const back = (part: Part, from: Floats, dFrom: Floats, to: Floats | undefined, add: boolean) =>
    forEachExpert(experts, routing, (mlp, rows, of) => {
      const { in: inner, out } = mlp[part]
      const into = to ? of(to, inner) : undefined
      linearBackward(compute, mlp[part], rows, of(from, inner), of(dFrom, out), into, add)
    })
  back('down', hidden, dy, dHidden, false)
  compute.siluBackward(gate, up, dHidden)
  // What the experts gave is of no more use.
  const dOwn = dx ? y : undefined
  back('gate', own, gate, dOwn, false)
  back('up', own, up, dOwn, true)
  if (dx) compute.combine(y, places, ones, dx, tokens, topK, width)
}
