import { type Expr, numel, type Problem, scale, type Tensor } from '@polygraft/tensor'
import type { Ask } from './measures.js'
import { type PerTensor, perTensorProblems } from './per-tensor.js'
import { densityProblems } from './problems.js'

/** One tensor of one task vector, in the dtype of the arithmetic. */
export interface Vector {
  /** Names it among all tensors and models: for what is measured, and for random draws. */
  readonly key: string
  readonly tensor: Tensor
}

/** How elements of task vectors are dropped at random. */
export interface Drop {
  /** Probability rho that an element is kept (1 - p of the paper): above 0, at most 1. */
  readonly density: PerTensor
  /** Names the draws, together with tensor, model and element. A safe integer. */
  readonly seed: number
}

/** As `rescaled`; 'probability': each element by the inverse of its probability to be kept, so that the expectation stays. */
export type Rescale = 'probability' | 'l1' | 'none'

/**
 * m tau with m ~ Bernoulli(rho) for each element; with `rescale` 'probability' m tau / rho, so that the expectation is tau (DARE,
 * Yu et al., arXiv:2311.03099, section 3.2). Masks of tensors and models are independent, and do not depend on tiles or threads. A NaN
 * stays one, and a dropped infinity becomes one, so that they are seen.
 */
export function dropped(
  vector: Vector,
  density: number,
  seed: number,
  rescale: Rescale,
  ask: Ask,
): Expr | undefined {
  const { key, tensor } = vector
  if (density === 1) return tensor.expr
  const mask: Expr = { op: 'mask', density, seed, name: key }
  const masked: Expr = { op: 'mul', args: [mask, tensor.expr] }
  return rescale === 'probability' ? scale(1 / density, masked) : rescaled(vector, masked, rescale, ask)
}

/** tau where it is among the largest floor(density * elements) in magnitude, at least one, else 0; of equal ones those of lowest index. */
export function trimmed({ key, tensor }: Vector, density: number, ask: Ask): Expr | undefined {
  const elements = numel(tensor.shape)
  if (density === 1 || elements === 0) return tensor.expr
  const keep = Math.max(1, Math.floor(density * elements))
  const found = ask.threshold(key, { tensor, keep })
  return found && { op: 'keep', arg: tensor.expr, threshold: found.threshold, tieEnd: found.tieEnd }
}

/** Norms below it are taken to be 0: mergekit's bound. */
const LEAST_NORM = 1e-7

/** 'l1': what is left of a vector, scaled to the vector's L1 norm (mergekit's `rescale`); as it is where either norm is below 1e-7. */
export function rescaled(
  { key, tensor }: Vector,
  left: Expr,
  rescale: 'l1' | 'none',
  ask: Ask,
): Expr | undefined {
  if (rescale === 'none') return left
  const before = ask.statistics(key, tensor)
  const after = ask.statistics(`${key}, what is left`, { ...tensor, expr: left })
  if (!before || !after) return undefined
  if (before.sumAbs < LEAST_NORM || after.sumAbs < LEAST_NORM) return left
  return scale(before.sumAbs / after.sumAbs, left)
}

/** What is wrong with density and seed. */
export function dropProblems({ density, seed }: Drop, tensors: readonly string[]): Problem[] {
  return [...perTensorProblems(density, tensors, densityProblems), ...seedProblems(seed)]
}

export function seedProblems(seed: number): Problem[] {
  if (Number.isSafeInteger(seed)) return []
  return [
    {
      code: 'bad-seed',
      message: 'The seed is not an integer that a number holds exactly',
      expected: 'an integer between -(2^53 - 1) and 2^53 - 1',
      received: `${seed}`,
    },
  ]
}
