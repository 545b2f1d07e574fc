import {
  expectedTensors,
  type Family,
  familyOf,
  moeConfig,
  moeTarget,
  nameOf,
  type Role,
  roleOf,
} from '@polygraft/architectures'
import { constant, deriveExpr, type Layout, layoutOf, piecesOf, readExpansion } from '@polygraft/experts'
import { routerExpr } from '@polygraft/routing'
import type {
  Checkpoint,
  Expr,
  JsonObject,
  Op,
  Provenance,
  Skipped,
  StateDict,
  Tensor,
} from '@polygraft/tensor'
import { literal, mergeSources, numel, throwIfAny } from '@polygraft/tensor'
import { type DenseSources, denseSources } from './_sources.js'
import { dropMoments } from './drop-targets.js'
import {
  inputsOf,
  ORIGINAL,
  type ResolvedOptions,
  recipeStep,
  resolveOptions,
  type UpcycleOptions,
} from './options.js'
import { upcycleProblems } from './upcycle-problems.js'

/**
 * Sparse upcycling (Komatsuzaki et al., arXiv:2212.05055): every feed-forward block becomes E experts that share the dense
 * block's expression, every layer gets a new router [E, H] in the dtype of its block, all else stays. Under a renormalising gate
 * the mixture computes the dense model's function for any router. The options have finer experts, dense layers, a shared
 * expert, experts drawn anew in part or from other models. Symbolic: nothing is read.
 * @throws ModelError with everything that `upcycleProblems` finds; "missing-statistics", "not-finite" for `drop`.
 */
export function upcycle(options: UpcycleOptions): Op {
  return (given) => {
    throwIfAny(upcycleProblems(given, options))
    const inputs = inputsOf(given, options)
    const checkpoint = inputs.base
    const resolved = resolveOptions(inputs.options)
    const { moments, problems } = dropMoments(checkpoint, resolved)
    throwIfAny(problems)
    const target = moeTarget(familyOf(checkpoint.config), checkpoint.config, resolved.target)
    const config = moeConfig(checkpoint.config, target, { ...resolved, numExperts: resolved.experts })
    const step = recipeStep(resolved, target.modelType, checkpoint, moments)
    // What is recorded is what is done: a graft reads the same step.
    const layout = layoutOf(config, checkpoint.config, readExpansion([step]))
    const sources = denseSources(checkpoint, resolved)
    const tensors = mixtureTensors(checkpoint.tensors, layout, config, sources, resolved)
    return {
      ...checkpoint,
      config,
      tensors,
      sources: mergeSources(checkpoint, ...resolved.expertsFrom.values()),
      provenance: provenanceOf(
        checkpoint,
        step,
        [...sources.unused(layout).filter(({ tensor }) => !tensors.has(tensor)), ...inputs.dropped],
        resolved,
      ),
    }
  }
}

/** The mixture's tensors in model order. */
function mixtureTensors(
  tensors: StateDict,
  layout: Layout,
  config: JsonObject,
  sources: DenseSources,
  options: ResolvedOptions,
): StateDict {
  const result = new Map<string, Tensor>()
  for (const [name, shape] of expectedTensors(layout.family, config)) {
    const role = roleOf(layout.family, name)
    result.set(
      name,
      derived(name, shape, layout, sources) ?? {
        dtype: blockDtype(tensors, layout.dense, role),
        shape,
        expr: role.group === 'router' ? newRouter(name, role, shape, options) : constant(0, numel(shape)),
      },
    )
  }
  // A head stored beside tied embeddings is carried along as it was.
  for (const [name, tensor] of tensors)
    if (roleOf(layout.dense, name).group === 'head' && !result.has(name)) result.set(name, tensor)
  return result
}

/** A tensor that derives from dense ones; undefined for what is new. */
function derived(
  name: string,
  shape: readonly number[],
  layout: Layout,
  sources: DenseSources,
): Tensor | undefined {
  const parts = piecesOf(layout, name).map((piece) => {
    const source = sources.find(piece)!
    return { source, expr: deriveExpr(layout, piece, source.expr), size: numel(source.shape) / piece.parts }
  })
  const [first] = parts
  if (!first) return undefined
  if (parts.length === 1)
    return first.expr === first.source.expr ? first.source : { ...first.source, shape, expr: first.expr }
  const expr: Expr = {
    op: 'concat',
    args: parts.map((part) => part.expr),
    sizes: parts.map(({ size }) => size),
  }
  return { dtype: first.source.dtype, shape, expr }
}

/** A row for each whole copy, the same for all of its parts: those are then chosen together. */
function newRouter(
  name: string,
  { layer }: Role,
  shape: readonly number[],
  { router, seed, granularity, experts }: ResolvedOptions,
): Expr {
  const hiddenSize = shape[1]!
  const drawn =
    typeof router === 'string'
      ? routerExpr({ init: router, numExperts: experts, hiddenSize, seed, name })
      : literal(router.values.get(layer!)!)
  if (granularity === 1) return drawn
  const runs = Array.from(
    { length: experts * granularity },
    (_, e) => [Math.floor(e / granularity), 1] as const,
  )
  return { op: 'rows', arg: drawn, width: hiddenSize, runs }
}

/** The dtype of the feed-forward block that a new tensor joins. */
function blockDtype(tensors: StateDict, dense: Family, { layer }: Role): Tensor['dtype'] {
  const name = nameOf(dense, { group: 'ffn', part: 'gate', ...(layer === undefined ? {} : { layer }) })
  return tensors.get(name ?? '')!.dtype
}

function provenanceOf(
  { provenance }: Checkpoint,
  step: JsonObject,
  unused: readonly Skipped[],
  { languages, granularity }: ResolvedOptions,
): Provenance {
  const labels = [ORIGINAL, ...languages].flatMap((label) => Array<string>(granularity).fill(label))
  return {
    recipe: [...provenance.recipe, step],
    skipped: [...provenance.skipped, ...unused],
    ...(languages.length ? { experts: labels } : {}),
  }
}
