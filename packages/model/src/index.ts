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
export { createRotation, type Rotation } from './rope.js'
