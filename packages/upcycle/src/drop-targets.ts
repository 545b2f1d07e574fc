import { expectedTensors, familyOf, moeConfig, moeTarget } from '@polygraft/architectures'
import {
  type Layout,
  layoutOf,
  momentsOf,
  type Piece,
  piecesOf,
  readExpansion,
  redrawnKey,
  replacedCount,
  replacedExpr,
} from '@polygraft/experts'
import {
  type Checkpoint,
  type JsonObject,
  type Problem,
  type StateDict,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { denseSources } from './_sources.js'
import { inputsOf, type ResolvedOptions, recipeStep, resolveOptions, type UpcycleOptions } from './options.js'
import { upcycleProblems } from './upcycle-problems.js'

/**
 * What has to be measured before Drop-Upcycling: for each matrix of each copy but the first the entries that are replaced, with zeros
 * in the place of all others. Give them to `measureStatistics` of `@polygraft/engine`, with the sources of the checkpoint and of
 * all models that experts come from. Empty for another `expertInit`.
 * @throws ModelError as `upcycle` does.
 */
export function dropTargets(given: Checkpoint, options: UpcycleOptions): StateDict {
  throwIfAny(upcycleProblems(given, options))
  const inputs = inputsOf(given, options)
  const checkpoint = inputs.base
  const resolved = resolveOptions(inputs.options)
  const { layout, config } = plannedLayout(checkpoint, resolved)
  const sources = denseSources(checkpoint, resolved)
  const targets = [...redrawnPieces(layout, config)].map(([key, piece]): [string, Tensor] => {
    const { dtype, expr } = sources.find(piece)!
    const wide = dtype === 'F64' ? 'F64' : 'F32'
    return [key, { dtype: wide, shape: piece.matrix!.shape, expr: replacedExpr(piece, expr) }]
  })
  return new Map(targets)
}

/** Mean and standard deviation for `redrawnKey`s, and what keeps them from being known. */
export function dropMoments(
  checkpoint: Checkpoint,
  options: ResolvedOptions,
): { moments: ReadonlyMap<string, readonly [number, number]>; problems: readonly Problem[] } {
  const { expertInit } = options
  if (expertInit.kind !== 'drop') return { moments: new Map(), problems: [] }
  const { layout, config } = plannedLayout(checkpoint, options)
  const count = replacedCount(layout)
  const moments = new Map<string, readonly [number, number]>()
  const problems: Problem[] = []
  for (const key of redrawnPieces(layout, config).keys()) {
    const found = expertInit.statistics?.get(key)
    if (!found || found.nonFinite > 0)
      problems.push(found ? notFinite(key, found.nonFinite) : notMeasured(key))
    else moments.set(key, momentsOf(found.sum, found.sumSquares, count))
  }
  return { moments, problems }
}

/** The layout that the options lead to, before its moments are known. */
function plannedLayout(
  checkpoint: Checkpoint,
  options: ResolvedOptions,
): { layout: Layout; config: JsonObject } {
  const target = moeTarget(familyOf(checkpoint.config), checkpoint.config, options.target)
  const config = moeConfig(checkpoint.config, target, { ...options, numExperts: options.experts })
  const step = recipeStep(options, target.modelType, checkpoint, new Map())
  return { layout: layoutOf(config, checkpoint.config, readExpansion([step])), config }
}

/** A piece of each matrix of each copy that is drawn anew in part. */
function redrawnPieces(layout: Layout, config: JsonObject): ReadonlyMap<string, Piece> {
  const names = [...expectedTensors(layout.family, config).keys()]
  const pieces = names.flatMap((name) => piecesOf(layout, name)).filter(({ kept }) => kept)
  return new Map(pieces.map((piece) => [redrawnKey(piece), piece]))
}

function notMeasured(tensor: string): Problem {
  return {
    code: 'missing-statistics',
    message: 'Entries that are to be drawn anew have not been measured',
    tensor,
    next: 'Measure dropTargets of the same checkpoint and options with measureStatistics.',
  }
}

function notFinite(tensor: string, count: number): Problem {
  return {
    code: 'not-finite',
    message: 'Entries that are to be drawn anew have no mean: some are infinite or NaN',
    tensor,
    expected: 'finite entries',
    received: `${count} that are not`,
    next: 'Look for what went wrong in the base, or use another expertInit.',
  }
}
