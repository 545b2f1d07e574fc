export type {
  Activation,
  AttentionLayer,
  Backend,
  Cache,
  CacheLayout,
  Gate,
  GatedMlp,
  Linear,
  Routing,
  RoutingValues,
  Rows,
  Span,
  Step,
  StepInput,
  Weight,
  WeightSource,
} from './backend.js'
export { type CpuOptions, createCpuBackend } from './cpu/create-cpu-backend.js'
export { type Model, type ModelOptions, type Observer, openModel, type TokenSpan } from './open-model.js'
export { createRotation, type Rotation } from './rope.js'
