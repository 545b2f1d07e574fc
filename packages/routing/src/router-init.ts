import type { Expr } from '@polygraft/tensor'
import { literal } from '@polygraft/tensor'
import { orthogonal } from './orthogonal.js'

/** How a new router starts. Never at zero: ties would send every token to the same experts for good. */
export type RouterInit = 'xavier' | 'normal' | 'orthogonal' | 'uniform'

/** Every `RouterInit`, the default first. */
export const ROUTER_INITS: readonly RouterInit[] = ['xavier', 'normal', 'orthogonal', 'uniform']

export interface RouterOptions {
  readonly init: RouterInit
  readonly numExperts: number
  readonly hiddenSize: number
  /** A safe integer. Together with `name` it decides every value. */
  readonly seed: number
  /** The router's tensor name, so that layers differ, and neither shards nor order matter. */
  readonly name: string
}

/** Standard deviation of the `normal` router, as transformers' `initializer_range`. */
const NORMAL_STD = 0.02

/**
 * A new router R [E, H] (E experts, H hidden), F32 until it is written:
 * - `xavier`: normal with std sqrt(2 / (H + E)) (Glorot & Bengio 2010; the choice of MoE-LPR, arXiv:2408.11396);
 * - `uniform`: the same variance, uniform in [-b, b) with b = sqrt(6 / (H + E));
 * - `normal`: N(0, 0.02^2);
 * - `orthogonal`: orthonormal rows (columns where E > H), so that its condition number is 1 (Saxe et al., arXiv:1312.6120).
 */
export function routerExpr({ init, numExperts, hiddenSize, seed, name }: RouterOptions): Expr {
  const fans = hiddenSize + numExperts
  switch (init) {
    case 'xavier':
      return { op: 'random', distribution: 'normal', scale: Math.sqrt(2 / fans), seed, name }
    case 'uniform':
      return { op: 'random', distribution: 'uniform', scale: Math.sqrt(6 / fans), seed, name }
    case 'normal':
      return { op: 'random', distribution: 'normal', scale: NORMAL_STD, seed, name }
    case 'orthogonal':
      return literal(orthogonal(numExperts, hiddenSize, seed, name))
  }
}
