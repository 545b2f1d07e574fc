import {
  type Checkpoint,
  type Expr,
  isFloat,
  literal,
  mergeSources,
  type Op,
  type Problem,
  sourceIds,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { type AdaptedModule, type AdapterContent, adapterContent, isTransposed } from './_adapter-modules.js'
import { adapterProblemsOf, adapterWarningsOf } from './_adapter-problems.js'
import { addDelta } from './apply-delta.js'
import { effectiveTensors, isTied, skippedTensors, storedExpr } from './effective-tensors.js'
import { scalingOf } from './lora-config.js'
import { lambdaProblems } from './problems.js'
import type { Adapter } from './read-adapter.js'

export interface AdapterOptions {
  /** From `readAdapter`. */
  readonly adapter: Adapter
  /** Multiplies the adapter's own alpha / rank. Tensors that the adapter holds whole stand for themselves. Default 1. */
  readonly scale?: number
  /** Of DoRA: the L2 norm of each row of `doraTargets`, under the same names (`measureRowNorms` of `@polygraft/engine`). */
  readonly norms?: ReadonlyMap<string, Float32Array>
}

/**
 * W + s B A for every adapted module, s = scale * alpha / rank (LoRA, Hu et al., arXiv:2106.09685, section 4.1), or alpha /
 * sqrt(rank) (rsLoRA, arXiv:2312.03732); rank and alpha by the adapter's patterns. With DoRA (arXiv:2402.09353, equation 5)
 * m (W + s B A) / ||W + s B A||, each row by its norm. B [out, rank], A [rank, in], W [out, in], or [in, out] under `fan_in_fan_out`;
 * an embedding's W [V, H] gets (B A)^T. In F32, rounded once to W's dtype: peft's `merge_and_unload` up to the order of its sums.
 * Tensors that the adapter holds whole (`modules_to_save`, biases, an embedding's own weight) replace the target's, in the
 * target's dtype; a tied target gets the head that they bring. Config and other files stay the target's.
 * @throws ModelError with all of `adapterProblems`; "missing-measure" naming every module of a DoRA without norms.
 */
export function applyAdapter(options: AdapterOptions): Op {
  const { adapter, scale = 1 } = options
  return (target) => {
    throwIfAny(adapterProblems(target, options))
    const content = adapterContent(adapter)
    throwIfAny(normProblems(target, options, content))
    const tensors = new Map(withReplaced(target, adapter, content))
    for (const adapted of content.modules) {
      const name = `${adapted.module}.weight`
      const expr = updated(tensors.get(name)!, adapted, target, options)
      tensors.set(name, { ...tensors.get(name)!, expr })
      const bias = `${adapted.module}.bias`
      if (adapted.bBias) tensors.set(bias, withBias(tensors.get(bias)!, adapted, target, options))
    }
    const inputs = { target: sourceIds(target), adapter: sourceIds(adapter.checkpoint) }
    const unties =
      isTied(target) && [...tensors.keys()].some((name) => !effectiveTensors(target, false).has(name))
    return {
      ...target,
      config: unties ? { ...target.config, tie_word_embeddings: false } : target.config,
      tensors,
      sources: mergeSources(target, adapter.checkpoint),
      provenance: {
        ...target.provenance,
        recipe: [...target.provenance.recipe, { op: 'lora', inputs, scale }],
        skipped: [...target.provenance.skipped, ...skippedTensors(target)],
      },
    }
  }
}

/**
 * Everything that keeps the adapter from being applied: modules that the target lacks or that the adapter's own configuration does
 * not name, shapes and ranks that do not fit, tensors that are no floats, a head that is tied. All of it.
 */
export function adapterProblems(target: Checkpoint, { adapter, scale = 1 }: AdapterOptions): Problem[] {
  return [...lambdaProblems(scale, 'scale'), ...adapterProblemsOf(target, adapter)]
}

/** What is odd, but does not keep the adapter from being applied: modules that its configuration names and that it lacks. */
export function adapterWarnings(target: Checkpoint, { adapter }: AdapterOptions): Problem[] {
  return adapterWarningsOf(target, adapter)
}

/** The updated weights whose rows' norms DoRA divides by, by name; none where the adapter is no DoRA. */
export function doraTargets(target: Checkpoint, options: AdapterOptions): Map<string, Tensor> {
  throwIfAny(adapterProblems(target, options))
  const { adapter } = options
  if (!adapter.config.dora) return new Map()
  const content = adapterContent(adapter)
  const tensors = withReplaced(target, adapter, content)
  return new Map(
    content.modules.map((adapted) => {
      const name = `${adapted.module}.weight`
      const { dtype, shape } = tensors.get(name)!
      const expr = summed(tensors.get(name)!, adapted, target, options)
      return [name, { dtype: dtype === 'F64' ? 'F64' : 'F32', shape, expr }]
    }),
  )
}

/** The target's tensors, with those that the adapter holds whole. */
function withReplaced(
  target: Checkpoint,
  { checkpoint }: Adapter,
  { replaced }: AdapterContent,
): Map<string, Tensor> {
  const tensors = new Map(effectiveTensors(target, false))
  const dtype = [...tensors.values()].find((tensor) => isFloat(tensor.dtype))?.dtype
  for (const [name, tensor] of replaced) {
    const own = tensors.get(name)
    const expr = storedExpr(tensor, checkpoint)
    tensors.set(name, { dtype: own?.dtype ?? dtype ?? tensor.dtype, shape: tensor.shape, expr })
  }
  return tensors
}

/** W + s B A. */
function summed(
  weight: Tensor,
  adapted: AdaptedModule,
  target: Checkpoint,
  { adapter, scale = 1 }: AdapterOptions,
): Expr {
  const { module, a, b } = adapted
  const { config, checkpoint } = adapter
  const [up, down] = [storedExpr(b!, checkpoint), storedExpr(a!, checkpoint)]
  const [rows, width] = [b!.shape[0]!, a!.shape[1]!]
  const { rank, scaling } = scalingOf(config, module)
  const transposed = isTransposed(target, adapter, adapted)
  const product: Expr = { op: 'lowrank', up, down, rows, rank, width, ...(transposed ? { transposed } : {}) }
  return addDelta(storedExpr(weight, target), product, scale * scaling)
}

function updated(weight: Tensor, adapted: AdaptedModule, target: Checkpoint, options: AdapterOptions): Expr {
  const sum = summed(weight, adapted, target, options)
  if (!options.adapter.config.dora) return sum
  const [out, width] = weight.shape as [number, number]
  const norms = options.norms!.get(`${adapted.module}.weight`)!
  const magnitude = storedExpr(adapted.magnitude!, options.adapter.checkpoint)
  const factor: Expr = { op: 'ratio', num: magnitude, den: literal(norms), guard: 0 }
  return { op: 'mul', args: [{ op: 'spread', arg: factor, count: out, each: width, times: 1 }, sum] }
}

function withBias(
  bias: Tensor,
  { module, bBias }: AdaptedModule,
  target: Checkpoint,
  { adapter: { config, checkpoint }, scale = 1 }: AdapterOptions,
): Tensor {
  const { scaling } = scalingOf(config, module)
  return {
    ...bias,
    expr: addDelta(storedExpr(bias, target), storedExpr(bBias!, checkpoint), scale * scaling),
  }
}

function normProblems(target: Checkpoint, options: AdapterOptions, { modules }: AdapterContent): Problem[] {
  if (!options.adapter.config.dora) return []
  const rows = new Map([...doraTargets(target, options)].map(([name, { shape }]) => [name, shape[0]!]))
  return modules
    .map(({ module }) => `${module}.weight`)
    .filter((name) => options.norms?.get(name)?.length !== rows.get(name))
    .map((tensor) => ({
      code: 'missing-measure',
      message: 'A weight of a DoRA has no norms of its rows',
      tensor,
      next: 'Measure doraTargets with measureRowNorms of @polygraft/engine.',
    }))
}
