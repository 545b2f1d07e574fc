import { roleOf } from '@polygraft/architectures'
import { type Checkpoint, literal, numel, type Problem, type Tensor, throwIfAny } from '@polygraft/tensor'
import { readDeltaStep } from './delta-step.js'
import { isVocabularyTensor, knownFamily, storedExpr } from './effective-tensors.js'
import { names } from './lora-config.js'

/** What `measureLowRank` of `@polygraft/engine` takes: a matrix, and how much of it is kept. */
export interface LowRankTarget {
  readonly tensor: Tensor
  readonly rank: number
  readonly energy?: number
}

/** What it gives: D_r = up [M, rank] x down [rank, N]. */
export interface LowRankFactors {
  readonly rank: number
  readonly up: Float32Array
  readonly down: Float32Array
  /** Sum of the squares of D, and the share of them that D_r keeps. */
  readonly squares: number
  readonly energy: number
}

export interface LowRankOptions {
  /** From `createDelta`. */
  readonly delta: Checkpoint
  /** The rank, or with `energy` the most. */
  readonly rank: number
  /** The least rank that keeps this share of a matrix' sum of squares. Above 0, at most 1. */
  readonly energy?: number
  /**
   * Modules by name or by its end after a dot (`q_proj`). By default the matrices of attention and feed-forward blocks, of every
   * expert; in a family that is not known, all matrices.
   */
  readonly targets?: readonly string[]
}

/**
 * The matrices of a delta that are to be cut to a low rank, by name.
 * @throws ModelError "unknown-module" with every target that no matrix has; "not-a-difference" where rows hold copies.
 */
export function lowRankTargets(options: LowRankOptions): Map<string, LowRankTarget> {
  throwIfAny(lowRankProblems(options))
  const { delta, rank, energy } = options
  return new Map(
    [...chosen(options)].map(([name, tensor]) => {
      const wide: Tensor = { dtype: 'F32', shape: tensor.shape, expr: storedExpr(tensor, delta) }
      return [name, { tensor: wide, rank, ...(energy === undefined ? {} : { energy }) }]
    }),
  )
}

/** What keeps the delta from being cut. */
export function lowRankProblems(options: LowRankOptions): Problem[] {
  const { delta, rank, energy, targets = [] } = options
  const all = matricesOf(delta).map(([name]) => moduleOf(name))
  const unknown = targets.filter((target) => !all.some((module) => names([target], module)))
  const copied = readDeltaStep(delta).copiedRows.length > 0
  const vocabulary = [...chosen(options).keys()].filter((name) =>
    isVocabularyTensor(knownFamily(delta), name),
  )
  return [
    ...(Number.isSafeInteger(rank) && rank > 0 ? [] : [badNumber('rank', 'a whole number above 0', rank)]),
    ...(energy === undefined || (energy > 0 && energy <= 1)
      ? []
      : [badNumber('energy', 'above 0, at most 1', energy)]),
    ...unknown.map((target) => unknownTarget(target, all)),
    ...(copied ? vocabulary : []).map(notADifference),
  ]
}

/**
 * LoRE of RE-Adapt (Fleshman and Van Durme, arXiv:2405.15007, section 3): the delta with the matrices of `factors` in place of the
 * whole ones, symbolic as before, so that theta_b + alpha D + beta Delta_r is what it is with the whole Delta. Tensors without factors
 * stay whole.
 * @throws ModelError "unknown-module", "shape-mismatch" with all factors that do not fit.
 */
export function truncateDelta(delta: Checkpoint, factors: ReadonlyMap<string, LowRankFactors>): Checkpoint {
  throwIfAny([...factors].flatMap(([name, each]) => factorProblems(delta, name, each)))
  const tensors = new Map(delta.tensors)
  const ranks: Record<string, number> = {}
  for (const [name, { rank, up, down }] of factors) {
    const { shape } = delta.tensors.get(name)!
    const [rows, width] = shape as [number, number]
    ranks[name] = rank
    tensors.set(name, {
      dtype: 'F32',
      shape,
      expr:
        rank === 0
          ? { op: 'spread', arg: literal(new Float32Array(1)), count: 1, each: rows * width, times: 1 }
          : { op: 'lowrank', up: literal(up), down: literal(down), rows, rank, width },
    })
  }
  const recipe = [...delta.provenance.recipe, { op: 'truncate', ranks }]
  return { ...delta, tensors, provenance: { ...delta.provenance, recipe } }
}

/** What keeps `factors` from standing for tensor `name` of the delta. */
export function factorProblems(
  delta: Checkpoint,
  name: string,
  { rank, up, down }: LowRankFactors,
): Problem[] {
  const tensor = delta.tensors.get(name)
  if (!tensor) return [unknownTarget(name, [...delta.tensors.keys()])]
  const [rows, width] = tensor.shape as [number, number]
  if (tensor.shape.length === 2 && up.length === rows * rank && down.length === rank * width) return []
  return [
    {
      code: 'shape-mismatch',
      message: 'The factors are of another matrix',
      tensor: name,
      expected: `[${tensor.shape}]`,
      received: `${up.length} x ${down.length} elements of rank ${rank}`,
    },
  ]
}

/** The module whose weight tensor `name` is. */
export function moduleOf(name: string): string {
  return name.replace(/\.weight$/, '')
}

function matricesOf({ tensors }: Checkpoint): [string, Tensor][] {
  return [...tensors].filter(
    ([name, { shape }]) => name.endsWith('.weight') && shape.length === 2 && numel(shape) > 0,
  )
}

function chosen({ delta, targets }: LowRankOptions): Map<string, Tensor> {
  const family = knownFamily(delta)
  const isUsual = (name: string) => {
    if (!family) return true
    const { group } = roleOf(family, name)
    return group === 'attention' || group === 'ffn' || group === 'expert'
  }
  const isChosen = (name: string) => (targets ? names(targets, moduleOf(name)) : isUsual(name))
  return new Map(matricesOf(delta).filter(([name]) => isChosen(name)))
}

function badNumber(field: string, expected: string, received: number): Problem {
  return { code: `bad-${field}`, message: `The ${field} cannot be used`, expected, received: `${received}` }
}

function unknownTarget(target: string, modules: readonly string[]): Problem {
  const ends = [...new Set(modules.map((module) => module.slice(module.lastIndexOf('.') + 1)))]
  return {
    code: 'unknown-module',
    message: `No matrix of the delta is called ${target}`,
    expected: ends.sort().join(', '),
    received: target,
  }
}

function notADifference(tensor: string): Problem {
  return {
    code: 'not-a-difference',
    message: 'Some rows of the delta hold tokens that only post has, and are no differences',
    tensor,
    next: 'Leave embedding and head out of the targets.',
  }
}
