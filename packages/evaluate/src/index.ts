export { createEvaluatedModel } from './create-evaluated-model.js'
export type {
  EvaluatedModel,
  EvaluationProgress,
  GenerateOptions,
  MeasureOptions,
} from './evaluated-model.js'
export { drawSvg, formatReport } from './format-report.js'
export { createLanguageClassifier, type LanguageClassifier } from './language-classifier.js'
export { measurePerplexity, type PerplexityOptions } from './measure-perplexity.js'
export { measureRouterSamples, type RouterSampleOptions } from './measure-router-samples.js'
export { type LayerRouting, layerDrift, measureRouting, sharesByLayer } from './measure-routing.js'
export { type ItemResult, measureTasks, type TaskOptions } from './measure-tasks.js'
export { type ExactMatch, type MultipleChoice, parseTasks, type TaskItem } from './parse-tasks.js'
export {
  type DeltaNorm,
  type Evaluation,
  type Figure,
  type LanguageScore,
  type ReportData,
  type RoutingShare,
  reportFigures,
} from './report.js'
export { type Accuracy, accuracyOf, retentionOf } from './scores.js'
export { languageFidelity, summarizeLanguages, summarizeTasks } from './summarize.js'
export { slidingWindows, type Window } from './windows.js'
