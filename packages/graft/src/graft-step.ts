import { type RowAlignment, readDeltaStep } from '@polygraft/delta'
import { type Allowed, type Checkpoint, type JsonObject, type JsonValue, sourceIds } from '@polygraft/tensor'
import type { GraftOptions, GraftSettings } from './options.js'

/** The recipe step of a graft, as plain data. */
export function graftStep(cpt: Checkpoint, options: GraftOptions, rows: RowAlignment): JsonObject {
  const { lambda = 1, expertLambda, layerLambda, foldRouter = false, sharedExpert, force = false } = options
  const { allow = [] } = options
  return {
    op: 'graft',
    inputs: { cpt: sourceIds(cpt), ...inputsOf(options) },
    lambda,
    expertLambda: Object.fromEntries(expertLambda ?? []),
    layerLambda: Object.fromEntries(layerLambda ?? []),
    foldRouter,
    ...(sharedExpert ? { sharedExpert } : {}),
    ...(allow.length ? { allow: allow.map((each) => ({ ...each })) } : {}),
    rows: rows.by,
    tokenizer: rows.tokenizer,
    force,
    ...('delta' in options ? { delta: options.delta.provenance.recipe } : {}),
  }
}

function inputsOf(options: GraftOptions): JsonObject {
  if (!('delta' in options)) return { base: sourceIds(options.base), post: sourceIds(options.post) }
  return { delta: sourceIds(options.delta), ...readDeltaStep(options.delta).inputs }
}

/** The settings that a graft step records, and the recipe of the stored delta if there was one. */
export interface RecordedGraft {
  readonly settings: GraftSettings
  readonly deltaRecipe: readonly JsonObject[] | undefined
}

/** The last graft in `checkpoint`'s recipe; undefined when there is none. Unknown fields are passed over. */
export function recordedGraft(checkpoint: Checkpoint): RecordedGraft | undefined {
  const step = checkpoint.provenance.recipe.findLast(({ op }) => op === 'graft')
  if (!step) return undefined
  const { sharedExpert, delta } = step
  const settings: GraftSettings = {
    lambda: typeof step.lambda === 'number' ? step.lambda : 1,
    expertLambda: factors(step.expertLambda),
    layerLambda: factors(step.layerLambda),
    foldRouter: step.foldRouter === true,
    force: step.force === true,
    allow: checkpoint.provenance.recipe.flatMap((each) =>
      each === step || each.op === 'recipe' ? recordedAllow(each) : [],
    ),
    ...(sharedExpert === 'derived' || sharedExpert === 'placeholder' ? { sharedExpert } : {}),
  }
  return { settings, deltaRecipe: Array.isArray(delta) ? (delta as readonly JsonObject[]) : undefined }
}

/** The rules of a step for tensors that were left out; a recipe has them for all of its inputs. */
export function recordedAllow({ op, allow: own, recipe }: JsonObject): readonly Allowed[] {
  const allow = op === 'recipe' ? (recipe as JsonObject | null)?.allow : own
  const isRule = (each: unknown): each is Allowed =>
    typeof (each as Allowed | null)?.tensors === 'string' && typeof (each as Allowed).reason === 'string'
  return Array.isArray(allow) ? (allow as readonly unknown[]).filter(isRule) : []
}

function factors(value: JsonValue | undefined): ReadonlyMap<number, number> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return new Map()
  const entries = Object.entries(value).map(([index, factor]) => [Number(index), Number(factor)] as const)
  return new Map(entries)
}
