import { type Checkpoint, type JsonObject, type JsonValue, ModelError, type RowRuns } from '@polygraft/tensor'

/** What a stored delta says of itself. */
export interface DeltaStep {
  /** Source ids of base and post, as they were recorded. */
  readonly inputs: { readonly base?: JsonValue; readonly post?: JsonValue }
  /** Rows of embedding and head that hold post's own row in place of a difference. */
  readonly copiedRows: RowRuns
}

/** The recipe step of `createDelta`, as plain data. */
export function deltaStep(
  inputs: { readonly base: JsonValue; readonly post: JsonValue },
  rows: 'same' | 'id' | 'token',
  copiedRows: RowRuns,
): JsonObject {
  return { op: 'delta', inputs, rows, copiedRows }
}

/**
 * The step that made `delta`, out of its provenance.
 * @throws ModelError "not-a-delta" when there is none, or when it is not of the form that `createDelta` records.
 */
export function readDeltaStep(delta: Checkpoint): DeltaStep {
  const step = delta.provenance.recipe.findLast(({ op }) => op === 'delta')
  const copiedRows = step?.copiedRows
  if (!step || !isRuns(copiedRows))
    throw new ModelError({
      code: 'not-a-delta',
      message: 'The checkpoint does not say that it is a delta',
      file: 'polygraft.json',
      expected: 'a recipe step {"op": "delta", "copiedRows": [...]}',
      received: step ? 'a step without usable copiedRows' : 'no such step',
      next: 'Make the delta with `polygraft delta`, and keep its polygraft.json beside the weights.',
    })
  const inputs = isObject(step.inputs) ? step.inputs : {}
  return { inputs, copiedRows }
}

function isRuns(value: JsonValue | undefined): value is RowRuns {
  const isIndex = (n: JsonValue | undefined) => typeof n === 'number' && Number.isSafeInteger(n) && n >= 0
  return (
    Array.isArray(value) && value.every((run) => Array.isArray(run) && run.length === 2 && run.every(isIndex))
  )
}

function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
