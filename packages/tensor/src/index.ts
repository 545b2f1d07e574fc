export { type Allowed, allowedTensors, matchesName, withoutAllowed } from './allow.js'
export type {
  ByteSource,
  Checkpoint,
  JsonObject,
  JsonValue,
  Op,
  Provenance,
  Skipped,
  Source,
  StateDict,
  StoredTensor,
  Tensor,
} from './checkpoint.js'
export { mergeSources, pipe, sourceIds, stateDictOf } from './checkpoint.js'
export type { DType, FloatDType } from './dtype.js'
export { byteSize, DTYPE_BITS, isDType, isFloat, numel } from './dtype.js'
export type { Problem, ProblemCode } from './error.js'
export { formatProblem, ModelError, throwIfAny } from './error.js'
export type { Expr, RowRuns, SourceId } from './expr.js'
export { literal, literalValues, operands, read, reads, scale } from './expr.js'
