import {
  denseName,
  expectedTensors,
  type Family,
  familyOf,
  moeConfig,
  moeTarget,
  nameOf,
  type Role,
  roleOf,
} from '@polygraft/architectures'
import { routerExpr } from '@polygraft/routing'
import type { Checkpoint, Expr, Op, Provenance, StateDict, Tensor } from '@polygraft/tensor'
import { sourceIds, throwIfAny } from '@polygraft/tensor'
import { zeros } from './_zeros.js'
import { ORIGINAL, type ResolvedOptions, recipeStep, resolveOptions, type UpcycleOptions } from './options.js'
import { upcycleProblems } from './upcycle-problems.js'

/**
 * Sparse upcycling (Komatsuzaki et al., arXiv:2212.05055): every feed-forward block becomes E experts that share the dense
 * block's expression, every layer gets a new router [E, H] in the dtype of its block, all else stays. Under a renormalising gate
 * the mixture computes the dense model's function for any router. Symbolic: nothing is read.
 * @throws ModelError with everything that `upcycleProblems` finds.
 */
export function upcycle(options: UpcycleOptions): Op {
  return (checkpoint) => {
    throwIfAny(upcycleProblems(checkpoint, options))
    const resolved = resolveOptions(options)
    const dense = familyOf(checkpoint.config)
    const target = moeTarget(dense, checkpoint.config, resolved.target)
    const config = moeConfig(checkpoint.config, target, { ...resolved, numExperts: resolved.experts })
    const shapes = expectedTensors(target, config)
    return {
      ...checkpoint,
      config,
      tensors: mixtureTensors(checkpoint.tensors, dense, target, shapes, resolved),
      provenance: provenanceOf(checkpoint, dense, target, resolved),
    }
  }
}

/** The mixture's tensors in model order. */
function mixtureTensors(
  tensors: StateDict,
  dense: Family,
  target: Family,
  shapes: ReadonlyMap<string, readonly number[]>,
  options: ResolvedOptions,
): StateDict {
  const result = new Map<string, Tensor>()
  const placeholder = placeholders()
  for (const [name, shape] of shapes) {
    const role = roleOf(target, name)
    const source = tensors.get(denseName(target, dense, name) ?? '')
    if (source) result.set(name, derived(name, role, source, options))
    else {
      const expr = role.group === 'router' ? newRouter(name, shape, options) : placeholder(shape)
      result.set(name, { dtype: blockDtype(tensors, dense, role), shape, expr })
    }
  }
  // A head stored beside tied embeddings is carried along as it was.
  for (const [name, tensor] of tensors)
    if (roleOf(dense, name).group === 'head' && !result.has(name)) result.set(name, tensor)
  return result
}

/** A tensor of the dense model under its new name. Expert 0 is an exact copy whatever the options. */
function derived(name: string, { expert = 0 }: Role, source: Tensor, options: ResolvedOptions): Tensor {
  const { expertInit, seed } = options
  if (expert === 0 || expertInit.kind === 'copy') return source
  const noise: Expr = { op: 'random', distribution: 'normal', scale: expertInit.std, seed, name }
  return { ...source, expr: { op: 'add', args: [source.expr, noise] } }
}

function newRouter(name: string, shape: readonly number[], { router, seed }: ResolvedOptions): Expr {
  const [numExperts, hiddenSize] = shape as [number, number]
  return routerExpr({ init: router, numExperts, hiddenSize, seed, name })
}

/** Zeros for the shared expert that Qwen2-MoE must have; one expression for all layers. */
function placeholders(): (shape: readonly number[]) => Expr {
  const made = new Map<string, Expr>()
  return (shape) => {
    const [rows, width] = [Math.min(...shape), Math.max(...shape)]
    const known = made.get(`${rows} ${width}`) ?? zeros(rows, width)
    made.set(`${rows} ${width}`, known)
    return known
  }
}

/** The dtype of the feed-forward block that a new tensor joins. */
function blockDtype(tensors: StateDict, dense: Family, { layer }: Role): Tensor['dtype'] {
  const name = nameOf(dense, { group: 'ffn', part: 'gate', ...(layer === undefined ? {} : { layer }) })
  return tensors.get(name ?? '')!.dtype
}

function provenanceOf(
  checkpoint: Checkpoint,
  dense: Family,
  target: Family,
  options: ResolvedOptions,
): Provenance {
  const { tensors, provenance } = checkpoint
  const buffers = [...tensors.keys()].filter((name) => roleOf(dense, name).group === 'buffer')
  const reason = 'a buffer that every model computes from its config'
  return {
    recipe: [...provenance.recipe, recipeStep(options, target.modelType, sourceIds(checkpoint))],
    skipped: [...provenance.skipped, ...buffers.map((tensor) => ({ tensor, reason }))],
    ...(options.languages.length ? { experts: [ORIGINAL, ...options.languages] } : {}),
  }
}
