import { familyOf, roleOf, type TargetName } from '@polygraft/architectures'
import {
  type Checkpoint,
  type Expr,
  literal,
  ModelError,
  type Problem,
  pipe,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { type UpcycleOptions, upcycle, upcycleProblems, upcycleWarnings } from '@polygraft/upcycle'
import type { MergeEnvironment } from './_merge-environment.js'
import { inDType } from './_merged-config.js'
import { placed } from './_placed.js'
import { gateWarnings, promptGates } from './_prompt-gates.js'
import type { BuiltMerge } from './build-merge.js'
import { isDrawn, type MixturePlan } from './mixture.js'

/**
 * Builds the mixture that a plan describes: an upcycled base with experts of several models, and routers as mergekit-moe makes
 * them: drawn, or of prompts that the base reads. Symbolic otherwise.
 * @throws ModelError with everything of `upcycleProblems`, and of what reads prompts, placed in the recipe.
 */
export async function buildMixture(plan: MixturePlan, environment: MergeEnvironment): Promise<BuiltMerge> {
  return placed(environment.yaml.place(['base_model']), async () => {
    const base = environment.models.get(plan.base)!
    const options = optionsOf(plan, base, environment)
    throwIfAny(upcycleProblems(base, options))
    const gates = await gatesOf(plan, base, environment)
    const mixture = withGates(pipe(base, upcycle(options)), plan, gates)
    const checkpoint = plan.dtype ? inDType(mixture, plan.dtype) : mixture
    return {
      checkpoint,
      warnings: [
        ...upcycleWarnings(options),
        ...gateWarnings(gates, plan.experts.length),
        ...(plan.shared ? [SHARED_STARTS_ELSE] : []),
      ],
    }
  })
}

function optionsOf(plan: MixturePlan, base: Checkpoint, { models }: MergeEnvironment): UpcycleOptions {
  const others = plan.experts.flatMap((name, e) =>
    name === plan.base ? [] : [[e, models.get(name)!] as const],
  )
  return {
    experts: plan.experts.length,
    topK: plan.topK,
    seed: plan.seed,
    target: targetOf(plan, base),
    expertsFrom: new Map(others),
    sharedExpert: plan.shared ? 'derived' : 'placeholder',
  }
}

function targetOf({ targets }: MixturePlan, base: Checkpoint): TargetName {
  const family = familyOf(base.config)
  const target = targets.find((each) => family.targets.includes(each))
  // What is wrong with a base that is a mixture already is upcycle's to say.
  if (target || family.moe) return target ?? 'auto'
  throw new ModelError({
    code: 'target-cannot-hold',
    message: `No architecture that the recipe lets the mixture be of can hold ${family.modelType}`,
    expected: family.targets.join(', '),
    received: targets.join(', '),
  })
}

/** Routers that are made of prompts, of each layer; none where they are drawn. */
async function gatesOf(
  { gate, prompts }: MixturePlan,
  base: Checkpoint,
  { prompts: read, yaml }: MergeEnvironment,
) {
  if (isDrawn(gate)) return []
  return placed(yaml.place(['experts'], 'key'), () => promptGates(base, { gate, prompts }, read))
}

function withGates(
  mixture: Checkpoint,
  { gate, seed }: MixturePlan,
  gates: readonly Float32Array[],
): Checkpoint {
  const family = familyOf(mixture.config)
  const tensors = [...mixture.tensors].map(([name, tensor]): [string, Tensor] => {
    const role = roleOf(family, name)
    if (role.group !== 'router') return [name, tensor]
    const drawn = isDrawn(gate) && drawnGate(gate, tensor.shape[1]!, seed, name)
    return [name, { ...tensor, expr: drawn || literal(gates[role.layer!]!) }]
  })
  const recipe = [
    ...mixture.provenance.recipe,
    { op: 'gates', mode: gate, ...(isDrawn(gate) ? { seed } : {}) },
  ]
  return { ...mixture, tensors: new Map(tensors), provenance: { ...mixture.provenance, recipe } }
}

function drawnGate(gate: 'random' | 'uniform_random', hiddenSize: number, seed: number, name: string): Expr {
  if (gate === 'random') return { op: 'random', distribution: 'normal', scale: 1, seed, name }
  return { op: 'random', distribution: 'uniform', scale: Math.sqrt(1 / hiddenSize), seed, name }
}

const SHARED_STARTS_ELSE: Problem = {
  code: 'differs-from-mergekit',
  message:
    'The shared expert and the routed ones count half each, so that the mixture starts as the base; mergekit-moe adds the shared one to the whole',
}
