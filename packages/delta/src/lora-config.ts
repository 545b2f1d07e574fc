import { type JsonObject, type JsonValue, type Problem, throwIfAny } from '@polygraft/tensor'

/** Modules by name: each by the whole of it or by its end after a dot; or a regular expression for all of it. */
export type ModuleChoice = readonly string[] | { readonly pattern: string }

/** What a LoRA's `adapter_config.json` says about its weights, under peft's meanings (peft 0.21, `LoraConfig`). */
export interface LoraConfig {
  /** Rank and alpha of modules that no pattern names. */
  readonly rank: number
  readonly alpha: number
  /** By regular expressions for a module's name or its end; the first that fits counts. */
  readonly rankPattern: ReadonlyMap<string, number>
  readonly alphaPattern: ReadonlyMap<string, number>
  /** Scale by alpha / sqrt(rank) in place of alpha / rank (rsLoRA, arXiv:2312.03732). */
  readonly rsLora: boolean
  /** Weights have a magnitude of their own for each row (DoRA, arXiv:2402.09353). */
  readonly dora: boolean
  /** The adapted layers store their weight as [in, out]. */
  readonly fanInFanOut: boolean
  readonly targets: ModuleChoice
  readonly excluded: ModuleChoice
  /** Layers that are adapted, of those that `targets` names; absent: all. */
  readonly layers?: readonly number[]
  /** What the list of layers is called in a module's name. */
  readonly layersPatterns: readonly string[]
  /** Modules that the adapter holds whole. */
  readonly modulesToSave: readonly string[]
  /** Whether the adapter holds trained biases of the base. */
  readonly bias: 'none' | 'all' | 'lora_only'
  /** Whether each B comes with a bias that is added to the layer's own. */
  readonly loraBias: boolean
}

const FILE = 'adapter_config.json'

/** Fields that say nothing about what the merged weights are. */
const WITHOUT_EFFECT = new Set([
  ...['peft_version', 'auto_mapping', 'base_model_name_or_path', 'revision', 'task_type', 'inference_mode'],
  ...['lora_dropout', 'megatron_config', 'megatron_core', 'loftq_config', 'eva_config', 'corda_config'],
  ...['lora_ga_config', 'velora_config', 'runtime_config', 'qalora_group_size'],
])
const KNOWN = new Set([
  ...[
    'peft_type',
    'r',
    'lora_alpha',
    'rank_pattern',
    'alpha_pattern',
    'use_rslora',
    'use_dora',
    'fan_in_fan_out',
  ],
  ...[
    'target_modules',
    'exclude_modules',
    'layers_to_transform',
    'layers_pattern',
    'modules_to_save',
    'bias',
  ],
  ...['lora_bias', 'init_lora_weights'],
])
/** What makes another model than base + scale * B A, and why. */
const REFUSED: Readonly<Record<string, string>> = {
  alora_invocation_tokens: 'an activated LoRA acts on some tokens only, which no single weight does',
  arrow_config: 'several adapters are mixed token by token',
  kasa_config: 'KaSA changes the weights of the base as well',
  monteclora_config: 'the update is drawn at random',
  layer_replication: 'the adapted model has other layers than the base',
  target_parameters: 'parameters that are no module, such as fused experts, are adapted',
  trainable_token_indices: 'single rows of the embedding are trained',
  use_bdlora: 'the factors are block-diagonal',
  use_qalora: 'inputs are pooled before A',
  ensure_weight_tying: 'the adapters of embedding and head are tied',
}
/** Ways to begin that take the first B A off the base: the adapter belongs to another base than the one that it names. */
const CHANGES_BASE = /^(pissa|olora|loftq|corda|lora_ga)/i

/**
 * Reads peft's LoRA configuration.
 * @throws ModelError listing everything that is missing, wrong or means another model than base + scale * B A.
 */
export function parseLoraConfig(config: JsonObject): LoraConfig {
  throwIfAny([
    ...typeProblems(config),
    ...shapeProblems(config),
    ...refusedProblems(config),
    ...['rank_pattern', 'alpha_pattern'].flatMap((field) => patternProblems(field, config[field])),
  ])
  const layers = config.layers_to_transform ?? undefined
  return {
    rank: config.r as number,
    alpha: config.lora_alpha as number,
    rankPattern: new Map(Object.entries((config.rank_pattern ?? {}) as Record<string, number>)),
    alphaPattern: new Map(Object.entries((config.alpha_pattern ?? {}) as Record<string, number>)),
    rsLora: config.use_rslora === true,
    dora: config.use_dora === true,
    fanInFanOut: config.fan_in_fan_out === true,
    targets: choiceOf(config.target_modules),
    excluded: choiceOf(config.exclude_modules),
    ...(layers === undefined ? {} : { layers: [layers].flat() as readonly number[] }),
    layersPatterns: stringsOf(config.layers_pattern),
    modulesToSave: stringsOf(config.modules_to_save),
    bias: (config.bias ?? 'none') as LoraConfig['bias'],
    loraBias: config.lora_bias === true,
  }
}

/** Rank and alpha of `module`, and the factor of its B A. */
export function scalingOf(config: LoraConfig, module: string): { rank: number; scaling: number } {
  const { rankPattern, alphaPattern, rsLora } = config
  const rank = firstMatch(rankPattern, module) ?? config.rank
  const alpha = firstMatch(alphaPattern, module) ?? config.alpha
  return { rank, scaling: alpha / (rsLora ? Math.sqrt(rank) : rank) }
}

/** Whether peft adapts `module` of a model. */
export function isTarget(config: LoraConfig, module: string): boolean {
  if (names(config.excluded, module) || isSaved(config, module)) return false
  if (!names(config.targets, module)) return false
  if (config.layers === undefined || config.layers.length === 0) return true
  const layer = layerOf(module, config.layersPatterns)
  return layer !== undefined && config.layers.includes(layer)
}

/** Whether the adapter holds `module`, or what it lies in, whole. */
export function isSaved({ modulesToSave }: LoraConfig, module: string): boolean {
  return modulesToSave.some((saved) => pattern(`(^|.*\\.)${saved}($|\\..*)`).test(module))
}

function firstMatch(patterns: ReadonlyMap<string, number>, module: string): number | undefined {
  for (const [text, value] of patterns) if (pattern(`^(.*\\.)?(${text})$`).test(module)) return value
  return undefined
}

/** Whether `choice` has `module`. */
export function names(choice: ModuleChoice, module: string): boolean {
  if ('pattern' in choice)
    return choice.pattern === 'all-linear' || pattern(`^(?:${choice.pattern})$`).test(module)
  return choice.some((name) => module === name || module.endsWith(`.${name}`))
}

function layerOf(module: string, patterns: readonly string[]): number | undefined {
  const forms = patterns.length === 0 ? ['.*?\\.[^.]*'] : patterns.map((text) => `(?:.*?\\.)?${text}`)
  for (const form of forms) {
    const index = pattern(`^${form}\\.(?<index>\\d+)\\.`).exec(module)?.groups?.index
    if (index !== undefined) return Number(index)
  }
  return undefined
}

/** Python's spelling of named groups is the only one of its own that these patterns use. */
function pattern(text: string): RegExp {
  return new RegExp(text.replaceAll('(?P<', '(?<'), 's')
}

function choiceOf(value: JsonValue | undefined): ModuleChoice {
  return typeof value === 'string' ? { pattern: value } : stringsOf(value)
}

function stringsOf(value: JsonValue | undefined): readonly string[] {
  return value === undefined || value === null ? [] : ([value].flat() as readonly string[])
}

function typeProblems({ peft_type: type }: JsonObject): Problem[] {
  if (type === 'LORA') return []
  return [
    {
      code: 'not-a-lora',
      message: 'Only LoRA adapters can be applied',
      file: FILE,
      expected: '"peft_type": "LORA"',
      received: JSON.stringify(type ?? null),
      next: 'Merge it with peft (merge_and_unload), and use the merged checkpoint.',
    },
  ]
}

/** Fields that are missing or of another type. */
function shapeProblems(config: JsonObject): Problem[] {
  const isString = (value: unknown) =>
    typeof value === 'string' && (value === 'all-linear' || isPattern(value))
  const isStrings = (value: unknown) =>
    Array.isArray(value) && value.every((each) => typeof each === 'string')
  const isIndex = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
  const isAbsent = (value: unknown) => value === undefined || value === null
  const isFlag = (value: unknown) => isAbsent(value) || typeof value === 'boolean'
  const rules: readonly (readonly [field: string, isRight: (value: unknown) => boolean, expected: string])[] =
    [
      ['r', (value) => isIndex(value) && value !== 0, 'a whole number above 0'],
      ['lora_alpha', (value) => typeof value === 'number', 'a number'],
      [
        'target_modules',
        (value) => isString(value) || isStrings(value),
        'a list of names, or a regular expression',
      ],
      [
        'exclude_modules',
        (value) => isAbsent(value) || isString(value) || isStrings(value),
        'as target_modules',
      ],
      [
        'layers_to_transform',
        (value) => isAbsent(value) || [value].flat().every(isIndex),
        'indices of layers',
      ],
      ['layers_pattern', (value) => isAbsent(value) || [value].flat().every(isString), 'regular expressions'],
      [
        'modules_to_save',
        (value) => isAbsent(value) || (isStrings(value) && (value as string[]).every(isPattern)),
        'a list of names',
      ],
      [
        'bias',
        (value) => isAbsent(value) || ['none', 'all', 'lora_only'].includes(value as string),
        'none, all or lora_only',
      ],
      ...['use_rslora', 'use_dora', 'fan_in_fan_out', 'lora_bias'].map(
        (field) => [field, isFlag, 'true or false'] as const,
      ),
    ]
  return rules
    .filter(([field, isRight]) => !isRight(config[field]))
    .map(([field, , expected]) => ({
      code: 'bad-adapter-config',
      message: config[field] === undefined ? `${field} is missing` : `${field} has no usable value`,
      file: FILE,
      expected,
      received: config[field] === undefined ? 'nothing' : JSON.stringify(config[field]),
    }))
}

function patternProblems(field: string, value: JsonValue | undefined): Problem[] {
  if (value === undefined || value === null) return []
  const entries = typeof value === 'object' && !Array.isArray(value) ? Object.entries(value) : undefined
  const isRight = ([key, each]: readonly [string, unknown]) =>
    typeof each === 'number' &&
    isPattern(key) &&
    (field === 'alpha_pattern' || (Number.isInteger(each) && each > 0))
  if (entries?.every(isRight)) return []
  return [
    {
      code: 'bad-adapter-config',
      message: `${field} has no usable value`,
      file: FILE,
      expected: 'regular expressions and a number for each',
      received: JSON.stringify(value),
    },
  ]
}

function isPattern(text: string): boolean {
  try {
    pattern(text)
    return true
  } catch {
    return false
  }
}

function refusedProblems(config: JsonObject): Problem[] {
  const problems = Object.entries(config).flatMap(([field, value]): Problem[] => {
    if (WITHOUT_EFFECT.has(field) || KNOWN.has(field) || isUnset(value)) return []
    const reason = REFUSED[field] ?? 'nothing is known of this field, which may change what the weights mean'
    return [
      refused(field, value, reason, 'Merge it with peft (merge_and_unload), and use the merged checkpoint.'),
    ]
  })
  const { init_lora_weights: init } = config
  if (typeof init === 'string' && CHANGES_BASE.test(init))
    problems.push(
      refused(
        'init_lora_weights',
        init,
        'training began with a changed base, which the adapter must be added to',
        'Save it with save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it an adapter of the base.',
      ),
    )
  return problems
}

function refused(field: string, value: JsonValue, reason: string, next: string): Problem {
  return {
    code: 'unsupported-adapter',
    message: `${field} is not supported: ${reason}`,
    file: FILE,
    received: JSON.stringify(value),
    next,
  }
}

function isUnset(value: JsonValue): boolean {
  if (value === null || value === false) return true
  return typeof value === 'object' && Object.keys(value).length === 0
}
