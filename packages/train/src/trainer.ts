import type { Team } from '@polygraft/engine'
import { ModelError } from '@polygraft/tensor'
import type { RouterLosses } from './_language-losses.js'
import { type AdamWOptions, cosineRate } from './adamw.js'
import type { DecoderSpec } from './decoder-spec.js'
import { type Batch, lossAndGradients } from './loss-and-gradients.js'
import type { Floats } from './matmul.js'
import type { Tensors } from './parameters.js'
import { createWorkspace } from './workspace.js'

/** How a run goes. */
export interface TrainerOptions {
  readonly steps: number
  /** The highest rate; warm-up to it, then a cosine down to `floor` of it. */
  readonly rate: number
  readonly warmup: number
  readonly floor: number
  /** Bound on the common norm of all gradients. */
  readonly clip: number
  readonly adam: AdamWOptions
  readonly losses: RouterLosses
  /** Whose threads compute; the calling one alone where it is left out. */
  readonly team?: Team
}

/** What a step did. */
export interface StepReport {
  /** Steps done, this one included. */
  readonly step: number
  /** Mean of the batches' losses, before the step. */
  readonly loss: number
  readonly rate: number
  /** Before it was clipped. */
  readonly gradientNorm: number
  readonly tokens: number
  /** Share of the slots that each expert had, over all layers; empty for a dense model. */
  readonly load: readonly number[]
}

/** A model in training. */
export interface Trainer {
  /** Every tensor; those that are trained change with each step. */
  readonly values: Tensors
  /** Moments of AdamW, of trained tensors. */
  readonly first: Tensors
  readonly second: Tensors
  /** Steps done; set when a run goes on. */
  step: number
  /**
   * One step on the mean of the gradients of `batches`.
   * @throws ModelError "not-finite" with the step and the first tensor whose gradient is; nothing has changed then.
   */
  update(batches: readonly Batch[]): StepReport
  /** Unit: bytes. */
  readonly peakBytes: number
}

/**
 * A trainer over values given by `fill`, in F32. Trained are the tensors of `trained`, each with its factor on the rate; weight decay is for
 * matrices alone.
 */
export function createTrainer(
  spec: DecoderSpec,
  shapes: ReadonlyMap<string, readonly number[]>,
  trained: ReadonlyMap<string, number>,
  options: TrainerOptions,
): Trainer {
  const workspace = createWorkspace(options.team)
  const { compute } = workspace
  const size = (name: string) => shapes.get(name)!.reduce((product, n) => product * n, 1)
  const names = [...shapes.keys()]
  const zeros = (of: Iterable<string>): Map<string, Floats> =>
    new Map([...of].map((name) => [name, workspace.allocate(size(name)).fill(0)]))
  const values = zeros(names)
  const gradients = zeros(trained.keys())
  const state = { first: zeros(trained.keys()), second: zeros(trained.keys()) }
  const trainer: Trainer = {
    values,
    ...state,
    step: 0,
    update(batches) {
      for (const gradient of gradients.values()) compute.clear(gradient)
      const counts = new Float64Array(spec.numExperts)
      const { losses } = options
      const onRouting = (slots: readonly number[]) =>
        slots.forEach((count, e) => {
          counts[e]! += count
        })
      let loss = 0
      for (const batch of batches)
        loss +=
          lossAndGradients(spec, values, gradients, batch, { losses, workspace, onRouting }) / batches.length
      const share = 1 / batches.length
      const gradientNorm = share * Math.sqrt(compute.squares([...gradients.values()]))
      if (!Number.isFinite(loss) || !Number.isFinite(gradientNorm))
        throw notFinite(trainer.step + 1, loss, gradients)
      const peak = cosineRate(trainer.step, { ...options, peak: options.rate })
      trainer.step++
      const factor = share * Math.min(1, options.clip / gradientNorm)
      for (const [name, gradient] of gradients) {
        const weightDecay = shapes.get(name)!.length > 1 ? options.adam.weightDecay : 0
        const rate = peak * trained.get(name)!
        const numbers = { ...options.adam, factor, rate, weightDecay, step: trainer.step }
        compute.adamW(values.get(name)!, gradient, state.first.get(name)!, state.second.get(name)!, numbers)
      }
      compute.flush()
      const slots = counts.reduce((sum, count) => sum + count, 0)
      return {
        step: trainer.step,
        loss,
        rate: peak,
        gradientNorm,
        tokens: batches.reduce((sum, { tokens }) => sum + tokens.length, 0),
        load: Array.from(slots > 0 ? counts : [], (count) => count / slots),
      }
    },
    get peakBytes() {
      return workspace.peakBytes
    },
  }
  return trainer
}

function notFinite(step: number, loss: number, gradients: Tensors): ModelError {
  const found = [...gradients].find(([, gradient]) => !gradient.every(Number.isFinite))?.[0]
  return new ModelError({
    code: 'not-finite',
    message: `Step ${step} has no finite ${Number.isFinite(loss) ? 'gradient' : 'loss'}`,
    ...(found === undefined ? {} : { tensor: found }),
    received: `loss ${loss}`,
    next: 'Lower the rate, lengthen the warm-up, or look for odd documents in the data. The last checkpoint is whole.',
  })
}
