export type {
  AlignedModels,
  MeasureMeanRow,
  NamedModel,
  TokenizerSetting,
  TokenSetting,
} from './align-models.js'
export { alignModels } from './align-models.js'
