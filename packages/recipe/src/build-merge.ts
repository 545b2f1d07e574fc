import { configDifferences, familyNamed } from '@polygraft/architectures'
import { measureMerge } from '@polygraft/delta'
import {
  type Checkpoint,
  isFloat,
  type JsonObject,
  type JsonValue,
  ModelError,
  mergeSources,
  type Problem,
  type Skipped,
  sourceIds,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { bindMethod } from './_bind-method.js'
import { mergedFiles } from './_merged-files.js'
import { type PartTensor, partParameters } from './_parameters.js'
import { othersOf } from './_plan-problems.js'
import {
  configOfLayers,
  inLayer,
  inOneForm,
  isBefore,
  layerCount,
  layerOf,
  type View,
  viewOf,
} from './_views.js'
import type { YamlText } from './_yaml.js'
import { alignModels, type NamedModel, type TokenizerSetting } from './align-models.js'
import type { Measuring } from './measuring.js'
import type { MergeInput, MergePlan, MergeSlice, PlannedToken } from './merge-plan.js'
import { METHODS } from './methods.js'

/** What a merge is built with. */
export interface MergeEnvironment {
  /** By the names that the plan has for them. */
  readonly models: ReadonlyMap<string, Checkpoint>
  readonly measuring: Measuring
  /** Go on although families and configs differ. */
  readonly force: boolean
  readonly yaml: YamlText
}

export interface BuiltMerge {
  readonly checkpoint: Checkpoint
  readonly warnings: readonly Problem[]
}

/**
 * Builds the checkpoint that a plan describes: models in one form, their vocabularies aligned by token, and the method on
 * each part of the output. Symbolic but for what the method has to measure.
 * @throws ModelError with every problem of a kind; those of the plan have their place in the recipe.
 */
export async function buildMerge(plan: MergePlan, environment: MergeEnvironment): Promise<BuiltMerge> {
  const names = modelNames(plan)
  const opened = names.map((name) => environment.models.get(name)!)
  throwIfAny([
    ...rangeProblems(plan, environment),
    ...(environment.force ? [] : familyProblems(plan, names, environment)),
  ])
  const { models, skipped } = inOneForm(opened)
  const named = names.map((label, i): NamedModel => ({ label, checkpoint: models[i]! }))
  const aligned = await alignModels(
    named,
    baseIndex(plan, names),
    tokenizerSetting(plan, names, environment),
    environment.measuring.meanRow,
  )
  const ready = new Map(names.map((name, i) => [name, withArithmetic(aligned.models[i]!, plan)]))
  const parts = partsOf(plan, ready)
  const merged = await inPlan(plan, environment, () => mergeParts(plan, parts, ready, environment))
  const target = ready.get(targetName(plan))!
  const original = environment.models.get(targetName(plan))!
  const files = await mergedFiles(plan, target, opened, aligned.vocabulary)
  const config = outputConfig(plan, target, parts, ready, aligned.vocabulary?.donor)
  return {
    warnings: [...aligned.warnings, ...files.warnings],
    checkpoint: {
      ...target,
      config,
      tensors: withDTypes(merged, original, plan),
      files: files.files,
      sources: mergeSources(...ready.values()),
      provenance: {
        ...target.provenance,
        recipe: [...target.provenance.recipe, stepOf(plan, environment.models)],
        skipped: [...target.provenance.skipped, ...skippedOf(plan, names, skipped, parts, ready)],
      },
    },
  }
}

/** All models of a plan; the first is the one that gives config, names and files. */
function modelNames(plan: MergePlan): string[] {
  const inputs = plan.slices.flatMap(({ base, inputs }) => [
    ...(base ? [base] : []),
    ...inputs.map(({ model }) => model),
  ])
  return [...new Set([targetName(plan), ...inputs])]
}

function targetName({ base, slices }: MergePlan): string {
  return base ?? slices[0]!.inputs[0]!.model
}

/** The base whose rows stand in for missing tokens, where there is one. */
function baseIndex({ base }: MergePlan, names: readonly string[]): number | undefined {
  return base === undefined ? undefined : names.indexOf(base)
}

/** A part of the output: a slice, where its layers go, and what lies before and after them. */
interface Part {
  readonly slice: MergeSlice
  readonly at: number
  readonly count: number
  readonly before: boolean
  readonly after: boolean
}

function partsOf({ slices }: MergePlan, models: ReadonlyMap<string, Checkpoint>): Part[] {
  let at = 0
  return slices.map((slice, i) => {
    const [from, to] = layersOf(slice.inputs[0]!, models)
    const part = { slice, at, count: to - from, before: i === 0, after: i === slices.length - 1 }
    at += to - from
    return part
  })
}

function layersOf(
  { layers, model }: MergeInput,
  models: ReadonlyMap<string, Checkpoint>,
): readonly [number, number] {
  return layers ?? [0, layerCount(models.get(model)!)]
}

function viewIn(part: Part, layers: readonly [number, number]): View {
  return { layers, at: part.at, before: part.before, after: part.after }
}

async function mergeParts(
  plan: MergePlan,
  parts: readonly Part[],
  models: ReadonlyMap<string, Checkpoint>,
  environment: MergeEnvironment,
): Promise<Map<string, Tensor>> {
  const total = parts.reduce((sum, { count }) => sum + count, 0)
  const tensors = new Map<string, Tensor>()
  for (const part of parts) {
    const merged = await mergePart(plan, part, total, models, environment)
    for (const [name, tensor] of merged.tensors) tensors.set(name, tensor)
  }
  return tensors
}

async function mergePart(
  plan: MergePlan,
  part: Part,
  total: number,
  models: ReadonlyMap<string, Checkpoint>,
  { measuring }: MergeEnvironment,
): Promise<Checkpoint> {
  const { slice } = part
  const rule = METHODS[plan.method]!
  const view = (input: MergeInput) =>
    viewOf(models.get(input.model)!, viewIn(part, layersOf(input, models)), total)
  const baseName = rule.base === 'none' ? undefined : (slice.base ?? plan.base)
  const listed = slice.inputs.find(({ model }) => model === baseName)
  const base =
    baseName === undefined ? undefined : (listed ?? { model: baseName, parameters: {}, path: plan.path })
  const others = othersOf(plan, slice)
  const target = view(base ?? others[0]!)
  const parameters = partParameters(plan, slice, others, partTensors(plan, part, target, models))
  throwIfAny(parameters.problems)
  const method = bindMethod({
    plan,
    parameters,
    models: others.map((input) => ({ model: view(input), input })),
    fromBase: base !== undefined,
    force: true,
  })
  const sources = mergeSources(...models.values())
  const measured = await measureMerge(
    (known) => method.targets(target, known),
    (targets) => measuring.targets(targets, sources),
  )
  return method.op(measured)(target)
}

/** The tensors of a part, with their places: gradients go over the layers of a slice. */
function partTensors(
  plan: MergePlan,
  { at, count }: Part,
  target: Checkpoint,
  models: ReadonlyMap<string, Checkpoint>,
): PartTensor[] {
  return [...target.tensors.keys()].map((name) => {
    const layer = layerOf(name)
    return {
      name,
      t: layer === undefined ? outsideOf(plan, name) : placeOf(plan, layer, { at, count }),
      nameIn: (input) =>
        layer === undefined ? name : inLayer(name, layer - at + layersOf(input, models)[0]),
    }
  })
}

function outsideOf({ outside }: MergePlan, name: string): number {
  return outside === 'ends' && !isBefore(name) ? 1 : 0
}

/** 0 for the first layer of a slice, 1 for its last; mergekit calls a single layer the last. */
function placeOf(
  { conventions }: MergePlan,
  layer: number,
  { at, count }: Pick<Part, 'at' | 'count'>,
): number {
  if (count === 1) return conventions === 'mergekit' ? 1 : 0
  return (layer - at) / (count - 1)
}

// --- checks -------------------------------------------------------------------------------------------------------------

function rangeProblems({ slices }: MergePlan, { models, yaml }: MergeEnvironment): Problem[] {
  return slices.flatMap(({ inputs }) =>
    inputs.flatMap(({ model, layers, path }) => {
      const count = layerCount(models.get(model)!)
      if (!layers || layers[1] <= count) return []
      return [
        {
          code: 'bad-value',
          message: 'The range goes past the last layer of the model',
          ...yaml.place([...path, 'layer_range']),
          expected: `at most [0, ${count}]`,
          received: `[${layers.join(', ')}]`,
        },
      ]
    }),
  )
}

/** Families and configs of all models against the first; lengths may differ where layers are chosen. */
function familyProblems(
  plan: MergePlan,
  names: readonly string[],
  { models, yaml }: MergeEnvironment,
): Problem[] {
  const [first, ...others] = names
  const target = models.get(first!)!
  const sliced = plan.slices.some(({ inputs }) => inputs.some(({ layers }) => layers))
  return others.flatMap((name) => {
    const place = yaml.place(pathOf(plan, name))
    return configProblems(target, models.get(name)!, sliced).map(({ file: _, message, ...problem }) => ({
      ...problem,
      message: `${message}: ${name} beside ${first}`,
      ...place,
    }))
  })
}

function configProblems(target: Checkpoint, model: Checkpoint, sliced: boolean): readonly Problem[] {
  const [ours, theirs] = [target, model].map(({ config }) => config.model_type)
  if (ours !== theirs)
    return [
      {
        code: 'family-mismatch',
        message: 'The models are of different families',
        expected: String(ours),
        received: String(theirs),
        next: 'Use checkpoints that come from the same base.',
      },
    ]
  if (typeof ours !== 'string' || !familyNamed(ours)) return []
  const same = (config: JsonObject): JsonObject =>
    sliced ? { ...config, num_hidden_layers: 1, layer_types: null, max_window_layers: 0 } : config
  return configDifferences(same(target.config), same(model.config))
}

function pathOf({ slices, path }: MergePlan, name: string) {
  const input = slices.flatMap(({ inputs }) => inputs).find(({ model }) => model === name)
  return input ? [...input.path, 'model'] : path
}

/** What goes wrong in `work` is told with the place of the merge and the names of its models. */
async function inPlan<T>(plan: MergePlan, { yaml }: MergeEnvironment, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    const others = othersOf(plan, plan.slices[0]!)
    const named = (text: string) =>
      plan.slices.length > 1
        ? text
        : text.replace(/\bmodel (\d+)\b/g, (all, i) => others[Number(i) - 1]?.model ?? all)
    const placed = error.problems.map((problem) => ({
      ...yaml.place(plan.path),
      ...problem,
      message: named(problem.message),
      ...(problem.received === undefined ? {} : { received: named(problem.received) }),
    }))
    throw new ModelError(placed, { cause: error })
  }
}

// --- tokenizer ----------------------------------------------------------------------------------------------------------

function tokenizerSetting(
  plan: MergePlan,
  names: readonly string[],
  { models, yaml }: MergeEnvironment,
): TokenizerSetting | undefined {
  if (!plan.tokenizer) return undefined
  const { source, tokens, padToMultipleOf } = plan.tokenizer
  const indexOf = (token: string, name: string): number => {
    const index = names.indexOf(name)
    if (index >= 0) return index
    throw new ModelError({
      code: 'bad-value',
      message: `The embedding of token ${JSON.stringify(token)} is to come from a model that is not merged`,
      ...yaml.place(['tokenizer', 'tokens', token]),
      expected: names.join(', '),
      received: name,
    })
  }
  const settings = Object.entries(tokens).map(([token, { source: from, force }]: [string, PlannedToken]) => {
    const resolved = from.kind === 'zero' ? from : { ...from, model: indexOf(token, from.model) }
    return [token, { source: resolved, force }] as const
  })
  const donor = (name: string) => {
    const index = names.indexOf(name)
    return { model: index >= 0 ? index : { label: name, checkpoint: models.get(name)! } }
  }
  return {
    source: source === 'union' ? source : donor(source === 'base' ? names[0]! : source.model),
    tokens: new Map(settings),
    ...(padToMultipleOf === undefined ? {} : { padToMultipleOf }),
  }
}

// --- the output ---------------------------------------------------------------------------------------------------------

/** Arithmetic is in F64 where the output is F64, and in F32 otherwise: the tensors of a target say which. */
function withArithmetic(model: Checkpoint, { dtype }: MergePlan): Checkpoint {
  if (dtype === undefined) return model
  const wide = dtype === 'F64'
  const tensors = [...model.tensors].map(([name, tensor]): [string, Tensor] => {
    if (!isFloat(tensor.dtype) || (tensor.dtype === 'F64') === wide) return [name, tensor]
    return [name, { ...tensor, dtype: wide ? 'F64' : 'F32' }]
  })
  return { ...model, tensors: new Map(tensors) }
}

/** In the dtype that the recipe asks for; else as the target has them. */
function withDTypes(
  tensors: ReadonlyMap<string, Tensor>,
  { tensors: target }: Checkpoint,
  { dtype }: MergePlan,
): ReadonlyMap<string, Tensor> {
  const first = [...target.values()][0]!.dtype
  return new Map(
    [...tensors].map(([name, tensor]) => {
      if (!isFloat(tensor.dtype)) return [name, tensor]
      return [name, { ...tensor, dtype: dtype ?? target.get(name)?.dtype ?? first }]
    }),
  )
}

const DTYPE_NAMES = { F64: 'float64', F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const
const GENERATION_IDS = ['bos_token_id', 'eos_token_id', 'pad_token_id']

function outputConfig(
  plan: MergePlan,
  target: Checkpoint,
  parts: readonly Part[],
  models: ReadonlyMap<string, Checkpoint>,
  donor: Checkpoint | undefined,
): JsonObject {
  const sliced = plan.slices.some(({ inputs }) => inputs.some(({ layers }) => layers))
  const origins = parts.flatMap(({ slice, count }) => {
    const source = slice.inputs[0]!
    const [from] = layersOf(source, models)
    return Array.from({ length: count }, (_, i) => ({
      config: models.get(source.model)!.config,
      layer: from + i,
    }))
  })
  const name = plan.dtype && DTYPE_NAMES[plan.dtype]
  const ids = donor ? GENERATION_IDS.filter((key) => Object.hasOwn(donor.config, key)) : []
  return {
    ...(sliced ? configOfLayers(target.config, origins) : target.config),
    ...(name ? { dtype: name, torch_dtype: name } : {}),
    ...Object.fromEntries(ids.map((key) => [key, donor!.config[key]!])),
  }
}

function stepOf(plan: MergePlan, models: ReadonlyMap<string, Checkpoint>): JsonObject {
  const { path: _, parameterPaths: _paths, slices, method, parameters, ...rest } = plan
  const inputs = Object.fromEntries(modelNames(plan).map((name) => [name, sourceIds(models.get(name)!)]))
  const plain = slices.map(({ path: _path, inputs, ...slice }) => ({
    ...slice,
    inputs: inputs.map(({ path: _input, ...input }) => input),
  }))
  const step = { op: method, inputs, ...rest, parameters, slices: plain }
  return JSON.parse(JSON.stringify(step)) as { [key: string]: JsonValue }
}

/** Tensors of the inputs that the output does not have, and why. */
function skippedOf(
  plan: MergePlan,
  names: readonly string[],
  ignored: readonly (readonly Skipped[])[],
  parts: readonly Part[],
  models: ReadonlyMap<string, Checkpoint>,
): Skipped[] {
  return names.flatMap((name, i) => {
    const model = models.get(name)!
    const used = new Set<string>()
    for (const part of parts)
      for (const input of inputsOf(plan, part.slice))
        if (input.model === name)
          for (const tensor of model.tensors.keys())
            if (isIn(tensor, part, layersOf(input, models))) used.add(tensor)
    const unused = [...model.tensors.keys()].filter((tensor) => !used.has(tensor))
    return [
      ...ignored[i]!.map(({ tensor, reason }) => ({ tensor, reason: `${reason} (${name})` })),
      ...unused.map((tensor) => ({ tensor, reason: `${reasonFor(tensor)} (${name})` })),
    ]
  })
}

function inputsOf(plan: MergePlan, slice: MergeSlice): readonly MergeInput[] {
  const base = METHODS[plan.method]!.base === 'none' ? undefined : (slice.base ?? plan.base)
  const listed = base === undefined || slice.inputs.some(({ model }) => model === base)
  return listed ? slice.inputs : [...slice.inputs, { model: base, parameters: {}, path: plan.path }]
}

function isIn(tensor: string, { before, after }: Part, [from, to]: readonly [number, number]): boolean {
  const layer = layerOf(tensor)
  if (layer === undefined) return isBefore(tensor) ? before : after
  return layer >= from && layer < to
}

function reasonFor(tensor: string): string {
  const layer = layerOf(tensor)
  if (layer !== undefined) return `layer ${layer} is in no slice`
  return isBefore(tensor) ? 'the first slice has another model' : 'the last slice has another model'
}
