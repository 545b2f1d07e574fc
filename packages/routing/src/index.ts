export { CONDITION_NUMBER_WARNING, conditionNumber } from './condition-number.js'
export type { Routing } from './gate.js'
export { gateTopK, gateTopKRenormalized } from './gate.js'
export type { LanguageRouterOptions, RouterSamples } from './language-router.js'
export {
  ALIKE_COSINE,
  addRouterSamples,
  alikeExperts,
  createRouterSamples,
  languageRouter,
} from './language-router.js'
export type { ExpertLoad, GateTrace, LoadSummary } from './load.js'
export { addLoad, createLoad, routingDrift, sumLoads, summarizeLoad } from './load.js'
export { orthogonal } from './orthogonal.js'
export { routerContrasts } from './router-contrasts.js'
export type { RouterInit, RouterOptions } from './router-init.js'
export { ROUTER_INITS, routerExpr } from './router-init.js'
