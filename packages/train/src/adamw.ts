import type { AdamWScalars } from '@polygraft/kernels'
import type { Floats } from './matmul.js'
import type { Tensors } from './parameters.js'

/** Hyperparameters of AdamW (arXiv:1711.05101). */
export interface AdamWOptions {
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  /** Decoupled: each step multiplies a parameter by 1 - rate * weightDecay. */
  readonly weightDecay: number
}

/** First and second moments, by tensor; zeros before the first step. */
export interface AdamWState {
  readonly first: Tensors
  readonly second: Tensors
}

/**
 * One step of AdamW in place, for every tensor in `gradients`, in plain TypeScript.
 * @param step counts from 1.
 */
export function adamW(
  values: Tensors,
  gradients: Tensors,
  { first, second }: AdamWState,
  step: number,
  rate: number,
  options: AdamWOptions,
): void {
  for (const [name, gradient] of gradients)
    adamWTensor(values.get(name)!, gradient, first.get(name)!, second.get(name)!, {
      ...{ ...options, factor: 1, rate, step },
    })
}

/** `Compute.adamW` in plain TypeScript. */
export function adamWTensor(
  value: Floats,
  gradient: Floats,
  first: Floats,
  second: Floats,
  { factor, beta1, beta2, eps, rate, weightDecay, step }: AdamWScalars,
): void {
  const size = rate / (1 - beta1 ** step)
  const root = Math.sqrt(1 - beta2 ** step)
  for (let i = 0; i < value.length; i++) {
    const g = factor * gradient[i]!
    first[i] = beta1 * first[i]! + (1 - beta1) * g
    second[i] = beta2 * second[i]! + (1 - beta2) * g * g
    const decayed = value[i]! * (1 - rate * weightDecay)
    value[i] = decayed - (size * first[i]!) / (Math.sqrt(second[i]!) / root + eps)
  }
}

/** Linear warm-up times a cosine from `peak` to `floor` * `peak` over `steps`; `step` counts from 0. */
export function cosineRate(
  step: number,
  { steps, peak, warmup, floor }: { steps: number; peak: number; warmup: number; floor: number },
): number {
  const wave = (1 + Math.cos((Math.PI * step) / Math.max(1, steps - 1))) / 2
  return peak * Math.min(1, (step + 1) / Math.max(1, warmup)) * (floor + (1 - floor) * wave)
}
