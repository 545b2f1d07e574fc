import type { Split } from './evaluate.js'

/** A row of a table: a method, and the stages that it is where its own parameter takes the values that are tried. */
export interface Method {
  readonly title: string
  readonly stages: readonly string[]
}

/** A table of the report. */
export interface Part {
  readonly name: string
  readonly title: string
  readonly about: string
  /** Where figures come from: 'test', and 'dev' for what was tried to find something better. */
  readonly split: Split
  /** Only the seeds that every row has. */
  readonly isCommon: boolean
  readonly methods: readonly Method[]
}

const lambdas = (name: string) => [name, ...[0.5, 0.75, 1.25].map((lambda) => `${name}-${lambda}`)]
const of = (title: string, ...stages: readonly string[]): Method => ({ title, stages })

const MAIN = [
  of('base', 'base'),
  of('instruct, no CPT', 'instruct'),
  of('dense CPT', 'dense-cpt'),
  of('ParamΔ: dense CPT + λΔ', ...lambdas('param-delta')),
  of('linear', 'linear-0.25', 'linear-0.5', 'linear-0.75'),
  of('SLERP', 'slerp-0.25', 'slerp-0.5', 'slerp-0.75'),
  of('TIES', ...['0.2-1', '0.2-2', '0.5-1', '0.5-2', '0.8-1', '0.8-2'].map((id) => `ties-${id}`)),
  of('DARE', 'dare-0.5', 'dare-0.8', 'dare-0.9'),
  of('DELLA', 'della-0.5-1', 'della-0.5-2', 'della-0.8-1', 'della-0.8-2'),
  of('Breadcrumbs', 'breadcrumbs-0.5', 'breadcrumbs-0.8', 'breadcrumbs-0.95'),
  of('Model Stock', 'model-stock-tensor', 'model-stock-rows'),
  of('RE-Adapt', 're-adapt-0.25', 're-adapt-0.5', 're-adapt-0.75'),
  of('dense CPT with 10 % replay, FLOP-matched, + λΔ', ...lambdas('replay-delta')),
  of('MoE-LPR: MoE + review, no Δ', 'moe-review'),
  of('**DeltaMoE**', ...lambdas('delta-moe')),
  of('dense CPT, then SFT on O (not data-free)', 'cpt-sft'),
  of('oracle: dense CPT, then SFT on O + N', 'oracle'),
]

const MATCHED = [
  of('**DeltaMoE**', ...lambdas('delta-moe')),
  of('upcycled instruct model, CPT, review', 'moe-review-instruct'),
  of('LLaMA Pro, 8 blocks, + λΔ', ...lambdas('llama-pro')),
  of('wider dense model, FFN × 4, + λΔ', ...lambdas('wide')),
  of('BTX, 3 experts, + λΔ', ...lambdas('btx-delta')),
]

const ABLATIONS = [
  of('**DeltaMoE**, λ = 1', 'delta-moe'),
  of('λ = 0.5', 'delta-moe-0.5'),
  of('λ = 0.75', 'delta-moe-0.75'),
  of('λ = 1.25', 'delta-moe-1.25'),
  of('no review', 'moe-delta'),
  of('Δ on the FFN alone', 'graft-ffn'),
  of('Δ on all but the FFN', 'graft-not-ffn'),
  of('Δ on attention alone', 'graft-attention'),
  of('Δ on all but embedding and head', 'graft-not-vocabulary'),
  of('Δ not on experts 1–3', 'graft-first-expert'),
  of('router folded', 'graft-fold'),
  of('λ = 1.25 on experts 1–3', 'graft-more-on-new'),
  of('λ from 0.8 in the first layer to 1.2 in the last', 'graft-later'),
  of('λ from 1.2 in the first layer to 0.8 in the last', 'graft-earlier'),
]

const TRAINED_ABLATIONS = [
  of('**DeltaMoE** (E = 4, k = 2, LPR 0.3, review of 100 steps)', 'delta-moe'),
  of('all tensors trained in CPT', 'delta-moe-all'),
  of('E = 2', 'delta-moe-2-experts'),
  of('LPR 0', 'delta-moe-no-lpr'),
  of('LPR 1', 'delta-moe-lpr-1'),
  of('review of 30 steps', 'delta-moe-30'),
  of('review of 300 steps', 'delta-moe-300'),
  of('orthogonal routers', 'delta-moe-orthogonal'),
]

const FRONTIER = [
  of('ParamΔ, weak CPT (half the steps, half the rate)', 'param-delta-weak'),
  of('ParamΔ', 'param-delta'),
  of('ParamΔ, strong CPT (twice the rate)', 'param-delta-strong'),
  of('DeltaMoE, weak CPT', 'delta-moe-weak'),
  of('DeltaMoE', 'delta-moe'),
  of('DeltaMoE, strong CPT', 'delta-moe-strong'),
]

const TRIED = [
  of('DeltaMoE, λ = 1', 'delta-moe'),
  of('ParamΔ, λ = 1', 'param-delta'),
  of('E = 3, k = 2, routers started and trained by language', 'delta-moe-by-language'),
  of('E = 3, k = 1, the same', 'delta-moe-top-1'),
  of('SFT with 50 % raw text: DeltaMoE', 'delta-moe-half'),
  of('SFT with 50 % raw text: ParamΔ', 'param-delta-half'),
  of('SFT with 50 % raw text: instruct, no CPT', 'instruct-half'),
]

const reported = { split: 'test', isCommon: false } as const
const common = { split: 'test', isCommon: true } as const

export const PARTS: readonly Part[] = [
  {
    ...{ name: 'main', title: 'Main rows', ...reported, methods: MAIN },
    about:
      'In brackets the value of the method’s own parameter that did best on the development split. Merges are of the dense CPT and the instruct model.',
  },
  {
    ...{ name: 'matched', title: 'As many parameters, other roads', ...reported, methods: MATCHED },
    about:
      'The mixture has 0.67 M parameters. LLaMA Pro: as many in 8 inserted blocks, which alone are trained; the wider model: the same neurons in one block, all trained; BTX: two dense models of one new language each, mixed. The upcycled instruct model is no graft: the mixture is made of the instruct model, then trained on raw text of the new languages and reviewed.',
  },
  {
    ...{ name: 'frontier', title: 'How hard continued pre-training hits', ...common, methods: FRONTIER },
    about: 'Weak: half the steps and half the rate. Strong: twice the rate. λ = 1.',
  },
  {
    ...{ name: 'grafts', title: 'Ablations of the graft', ...reported, methods: ABLATIONS },
    about: 'No training: all on the same mixture. λ = 1 where nothing else is said.',
  },
  {
    ...{ name: 'trainings', title: 'Ablations of the training', ...common, methods: TRAINED_ABLATIONS },
    about: 'λ = 1.',
  },
  {
    ...{ name: 'tried', title: 'Tried to make it better', split: 'dev', isCommon: true, methods: TRIED },
    about: 'On the development split. λ = 1.',
  },
]
