import type { SharedExpert, TargetName } from '@polygraft/architectures'
import type { RouterInit } from '@polygraft/routing'
import { ROUTER_INITS } from '@polygraft/routing'
import {
  type Allowed,
  allowedTensors,
  type Checkpoint,
  type JsonObject,
  type Problem,
  type Skipped,
  sourceIds,
  withoutAllowed,
} from '@polygraft/tensor'

/**
 * How experts other than expert 0 start; with `noise` and `drop` the model no longer computes exactly what it did.
 * - `copy`: as the dense block.
 * - `noise`: as the dense block plus N(0, std^2), std being absolute.
 * - `drop`: as the dense block, but for a share `rate` of its neurons, chosen anew for each copy: their entries in all three
 *   matrices are drawn from N(mean, std^2) with the mean and standard deviation of those that they replace (Drop-Upcycling,
 *   arXiv:2502.19261). Those are measured of `dropTargets` first.
 */
export type ExpertInit =
  | { readonly kind: 'copy' }
  | { readonly kind: 'noise'; readonly std: number }
  | {
      readonly kind: 'drop'
      readonly rate: number
      readonly statistics?: ReadonlyMap<string, RedrawnStatistics>
    }

/** Of the replaced entries, with zeros in the place of all others: what `measureStatistics` of `@polygraft/engine` finds. */
export interface RedrawnStatistics {
  readonly sum: number
  readonly sumSquares: number
  readonly nonFinite: number
}

/** Routers whose values are known, such as those that `languageRouter` of `@polygraft/routing` makes of text. */
export interface GivenRouters {
  /** How they came about, for the manifest. */
  readonly from: JsonObject
  /** R [E, H], row-major, of every layer that becomes a mixture. */
  readonly values: ReadonlyMap<number, Float32Array>
}

export interface UpcycleOptions {
  /** E, the first of them the original language's. Default: 1 + the number of languages. */
  readonly experts?: number
  /** k, experts per token. Default 2 (1 when there is one expert). */
  readonly topK?: number
  /**
   * Parts g that each expert is cut into: E * g experts of size I / g, k * g for a token, whose routers start alike within a
   * whole, so that wholes are chosen (virtual groups, arXiv:2410.07524). The down projection is scaled by g, which is exact
   * where g is a power of two. Default 1.
   */
  readonly granularity?: number
  /** Layers that keep their dense block, where the target has such. Default none. */
  readonly denseLayers?: readonly number[]
  /**
   * Where the target has a shared expert: `placeholder`, zeros; or `derived`, the dense block, with a gate of zeros, which
   * gives it the weight 1/2, and the routed experts halved. Default `placeholder`.
   */
  readonly sharedExpert?: SharedExpert
  /** Dense models that experts come from in place of the base, by expert (Branch-Train-MiX, arXiv:2403.07816). */
  readonly expertsFrom?: ReadonlyMap<number, Checkpoint>
  /** Where everything but the experts comes from: the base, or the mean of all the models that experts come from. Default `base`. */
  readonly others?: 'base' | 'mean'
  /** Default `auto`: Llama and Mistral become Mixtral, Qwen2 Qwen2-MoE, Qwen3 Qwen3-MoE. */
  readonly target?: TargetName
  /** Default `xavier`. */
  readonly router?: RouterInit | GivenRouters
  /** Decides, with each tensor's name, every random value. A safe integer; default 0. */
  readonly seed?: number
  /** Default `copy`. */
  readonly expertInit?: ExpertInit
  /** Labels of experts 1, 2, ... : one new language, or group of languages, each. */
  readonly languages?: readonly string[]
  /** Tensors of the inputs that the mixture has no place for, and that are left out on purpose. */
  readonly allow?: readonly Allowed[]
  /** Whether the gate renormalises the top-k weights. Default true: anything else does not preserve the function. */
  readonly normTopkProb?: boolean
}

/** The options with every default filled in. */
export type ResolvedOptions = Required<UpcycleOptions>

/** What is worked on: the inputs without what may be left out, and that. */
export interface Inputs {
  readonly base: Checkpoint
  readonly options: UpcycleOptions
  readonly dropped: readonly Skipped[]
}

/** A model that is given in two places stays one model. */
export function inputsOf(base: Checkpoint, options: UpcycleOptions): Inputs {
  const { allow = [], expertsFrom } = options
  if (allow.length === 0) return { base, options, dropped: [] }
  const models = new Map([[base, 'base']])
  for (const [expert, model] of expertsFrom ?? [])
    if (!models.has(model)) models.set(model, `model of expert ${expert}`)
  const cut = new Map([...models.keys()].map((model) => [model, withoutAllowed(model, allow)]))
  const from = [...(expertsFrom ?? [])].map(([expert, model]) => [expert, cut.get(model)!] as const)
  return {
    base: cut.get(base)!,
    options: { ...options, expertsFrom: new Map(from) },
    dropped: [...models].flatMap(([model, role]) => allowedTensors(model, allow, role)),
  }
}

/** The label of expert 0. */
export const ORIGINAL = 'original'

/** `options` with every default filled in; `experts` is NaN when nothing says how many. */
export function resolveOptions(options: UpcycleOptions): ResolvedOptions {
  const languages = options.languages ?? []
  const experts = options.experts ?? (languages.length ? languages.length + 1 : Number.NaN)
  return {
    experts,
    topK: options.topK ?? (experts === 1 ? 1 : 2),
    target: options.target ?? 'auto',
    router: options.router ?? 'xavier',
    seed: options.seed ?? 0,
    expertInit: options.expertInit ?? { kind: 'copy' },
    granularity: options.granularity ?? 1,
    denseLayers: options.denseLayers ?? [],
    sharedExpert: options.sharedExpert ?? 'placeholder',
    expertsFrom: options.expertsFrom ?? new Map(),
    others: options.others ?? 'base',
    languages,
    allow: options.allow ?? [],
    normTopkProb: options.normTopkProb ?? true,
  }
}

/** Everything wrong with the options alone, as "bad-option"; the target is `moeTarget`'s to judge. */
export function optionProblems(options: ResolvedOptions): readonly Problem[] {
  const { experts, topK, router, seed, expertInit, granularity, expertsFrom } = options
  const foreign = [...expertsFrom.keys()].filter((e) => !(Number.isInteger(e) && e >= 0 && e < experts))
  const checks: readonly (false | Problem)[] = [
    !isCount(experts) && bad('experts', 'a whole number of at least 1, or languages to count', experts),
    isCount(experts) && !(isCount(topK) && topK <= experts) && bad('topK', `from 1 to ${experts}`, topK),
    typeof router === 'string' &&
      !ROUTER_INITS.includes(router) &&
      bad('router', ROUTER_INITS.join(', '), router),
    !Number.isSafeInteger(seed) && bad('seed', 'a whole number within 2^53', seed),
    !isExpertInit(expertInit) &&
      bad(
        'expertInit',
        'copy, noise with a positive std, or drop with a rate above 0 and at most 1',
        JSON.stringify({ ...expertInit, statistics: undefined }),
      ),
    !isCount(granularity) && bad('granularity', 'a whole number of at least 1', granularity),
    isCount(experts) &&
      foreign.length > 0 &&
      bad('expertsFrom', `experts from 0 to ${experts - 1}`, foreign.join(', ')),
    options.others === 'mean' &&
      expertsFrom.size === 0 &&
      bad('others', 'base, or models that experts come from', 'mean'),
    ...languageChecks(options),
  ]
  return checks.filter((check) => check !== false)
}

function languageChecks({ experts, languages }: ResolvedOptions): readonly (false | Problem)[] {
  const names = [ORIGINAL, ...languages]
  const repeated = names.filter((name, at) => names.indexOf(name) !== at)
  return [
    languages.length > 0 &&
      isCount(experts) &&
      languages.length !== experts - 1 &&
      bad(
        'languages',
        `${experts - 1} of them: one for each of the ${experts} experts but the original's`,
        languages.join(', '),
      ),
    languages.some((name) => name.trim() === '') && bad('languages', 'names', 'an empty one'),
    repeated.length > 0 &&
      bad('languages', `different names, none of them "${ORIGINAL}"`, repeated.join(', ')),
  ]
}

function isCount(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 1
}

function isExpertInit(init: ExpertInit): boolean {
  if (init.kind === 'noise') return Number.isFinite(init.std) && init.std > 0
  return init.kind === 'copy' || (init.kind === 'drop' && init.rate > 0 && init.rate <= 1)
}

/** Given routers that do not fit the mixture, as one "bad-option". `layers` are those that become mixtures. */
export function routerProblems(
  { router, experts }: ResolvedOptions,
  layers: readonly number[],
  hiddenSize: number,
): readonly Problem[] {
  if (typeof router === 'string') return []
  const size = experts * hiddenSize
  const wrong = layers.filter((layer) => router.values.get(layer)?.length !== size)
  if (wrong.length === 0) return []
  const sizes = wrong.map((layer) => `${router.values.get(layer)?.length ?? 'no'} values for layer ${layer}`)
  return [bad('router', `[${experts}, ${hiddenSize}] for each mixture layer`, sizes.join(', '))]
}

function bad(option: string, expected: string, received: unknown): Problem {
  return {
    code: 'bad-option',
    message: `Option ${option} is not usable`,
    expected,
    received: Number.isNaN(received) ? 'nothing' : String(received),
    next: `Change ${option}.`,
  }
}

/**
 * The step as `polygraft.json` records it, with the ids of its inputs and the target that `auto` came to. It says all that is
 * done: `moments` are those that redrawn entries are drawn with.
 */
export function recipeStep(
  options: ResolvedOptions,
  target: string,
  base: Checkpoint,
  moments: ReadonlyMap<string, readonly [number, number]>,
): JsonObject {
  const { expertInit, expertsFrom, denseLayers, allow, router, ...rest } = options
  const from = [...expertsFrom].map(([expert, model]) => [expert, sourceIds(model)] as const)
  return {
    op: 'upcycle',
    inputs: { base: sourceIds(base), ...(from.length ? { experts: Object.fromEntries(from) } : {}) },
    ...rest,
    target,
    router: typeof router === 'string' ? router : router.from,
    denseLayers: [...denseLayers],
    ...(allow.length ? { allow: allow.map((each) => ({ ...each })) } : {}),
    expertInit:
      expertInit.kind === 'drop'
        ? { kind: 'drop', rate: expertInit.rate, moments: Object.fromEntries(moments) }
        : { ...expertInit },
  }
}
