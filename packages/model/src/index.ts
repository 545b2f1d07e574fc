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
export { type Answer, type AnswerOptions, createGenerator, type Generator } from './create-generator.js'
export { measurePromptEmbedding, measurePromptStates, type Prompts } from './measure-prompts.js'
export { observeTokens } from './observe-tokens.js'
export { type Model, type ModelOptions, type Observer, openModel, type TokenSpan } from './open-model.js'
export { type ChatMessage, openTokenizer, readEndTokens, type TextTokenizer } from './open-tokenizer.js'
export { createRotation, type Rotation } from './rope.js'
export { type Sampling, sampleToken } from './sample-token.js'
