import { type Expr, type Problem, scale } from '@polygraft/tensor'
import { vectorName } from './merge-models.js'
import { densityProblems } from './problems.js'

/** How elements of task vectors are dropped at random. */
export interface Drop {
  /** Probability rho that an element is kept (1 - p of the paper): above 0, at most 1. */
  readonly density: number
  /** Names the draws, together with tensor, model and element. A safe integer. */
  readonly seed: number
}

/**
 * Drop and rescale (DARE, Yu et al., arXiv:2311.03099, section 3.2): m tau / rho with m ~ Bernoulli(rho) for each element, so
 * that the expectation is tau. `vectors` are tensor `name` of each model; masks of tensors and models are independent, and
 * do not depend on tiles or threads. A NaN stays one, and a dropped infinity becomes one, so that they are seen.
 */
export function dropVectors(
  vectors: readonly Expr[],
  name: string,
  { density, seed }: Drop,
): readonly Expr[] {
  if (density === 1) return vectors
  return vectors.map((vector, t) => {
    const mask: Expr = { op: 'mask', density, seed, name: vectorName(name, t) }
    return scale(1 / density, { op: 'mul', args: [mask, vector] })
  })
}

/** What is wrong with density and seed. */
export function dropProblems({ density, seed }: Drop): Problem[] {
  const problems = densityProblems(density)
  if (Number.isSafeInteger(seed)) return problems
  return [
    ...problems,
    {
      code: 'bad-seed',
      message: 'The seed is not an integer that a number holds exactly',
      expected: 'an integer between -(2^53 - 1) and 2^53 - 1',
      received: `${seed}`,
    },
  ]
}
