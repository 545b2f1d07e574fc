import type { TargetName } from '@polygraft/architectures'
import type { RouterInit } from '@polygraft/routing'
import { ROUTER_INITS } from '@polygraft/routing'
import type { JsonObject, JsonValue, Problem } from '@polygraft/tensor'

/**
 * How experts other than expert 0 start. `copy`: as the dense block. `noise`: as the dense block plus N(0, std^2), std being
 * absolute; the model then no longer computes exactly what it did.
 */
export type ExpertInit = { readonly kind: 'copy' } | { readonly kind: 'noise'; readonly std: number }

export interface UpcycleOptions {
  /** E, the first of them the original language's. Default: 1 + the number of languages. */
  readonly experts?: number
  /** k, experts per token. Default 2 (1 when there is one expert). */
  readonly topK?: number
  /** Default `auto`: Llama and Mistral become Mixtral, Qwen2 Qwen2-MoE, Qwen3 Qwen3-MoE. */
  readonly target?: TargetName
  /** Default `xavier`. */
  readonly router?: RouterInit
  /** Decides, with each tensor's name, every random value. A safe integer; default 0. */
  readonly seed?: number
  /** Default `copy`. */
  readonly expertInit?: ExpertInit
  /** Labels of experts 1, 2, ... : one new language, or group of languages, each. */
  readonly languages?: readonly string[]
  /** Whether the gate renormalises the top-k weights. Default true: anything else does not preserve the function. */
  readonly normTopkProb?: boolean
}

/** The options with every default filled in. */
export type ResolvedOptions = Required<UpcycleOptions>

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
    languages,
    normTopkProb: options.normTopkProb ?? true,
  }
}

/** Everything wrong with the options alone, as "bad-option"; the target is `moeTarget`'s to judge. */
export function optionProblems(options: ResolvedOptions): readonly Problem[] {
  const { experts, topK, router, seed, expertInit } = options
  const checks: readonly (false | Problem)[] = [
    !isCount(experts) && bad('experts', 'a whole number of at least 1, or languages to count', experts),
    isCount(experts) && !(isCount(topK) && topK <= experts) && bad('topK', `from 1 to ${experts}`, topK),
    !ROUTER_INITS.includes(router) && bad('router', ROUTER_INITS.join(', '), router),
    !Number.isSafeInteger(seed) && bad('seed', 'a whole number within 2^53', seed),
    !isExpertInit(expertInit) &&
      bad('expertInit', 'copy, or noise with a positive std', JSON.stringify(expertInit)),
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
  return init.kind === 'copy' || (init.kind === 'noise' && Number.isFinite(init.std) && init.std > 0)
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

/** The step as `polygraft.json` records it, with the id of its input and the target that `auto` came to. */
export function recipeStep(options: ResolvedOptions, target: string, base: JsonValue): JsonObject {
  const { experts, topK, router, seed, expertInit, languages, normTopkProb } = options
  return {
    op: 'upcycle',
    inputs: { base },
    experts,
    topK,
    target,
    router,
    seed,
    expertInit: { ...expertInit },
    languages,
    normTopkProb,
  }
}
