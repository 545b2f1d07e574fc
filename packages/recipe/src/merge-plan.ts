import type { Path } from './_yaml.js'
import type { Setting } from './setting.js'

/** Parameters by name, of a model, a slice or the whole merge. */
export type Settings = Readonly<Record<string, Setting>>

/** A model in a merge: whole, or some of its layers. */
export interface MergeInput {
  /** Names the model among those that the recipe refers to. */
  readonly model: string
  /** Half-open; absent: all of them. */
  readonly layers?: readonly [from: number, to: number]
  readonly parameters: Settings
  /** Where the recipe says so. */
  readonly path: Path
}

/** Consecutive layers of the output, and what they are made of. */
export interface MergeSlice {
  readonly inputs: readonly MergeInput[]
  /** Of these, the base; where absent that of the plan. */
  readonly base?: string
  readonly parameters: Settings
  readonly path: Path
}

/** Whose row a token gets: see `TokenSetting`; models by name. */
export interface PlannedToken {
  readonly source:
    | { readonly kind: 'zero' }
    | { readonly kind: 'model'; readonly model: string }
    | { readonly kind: 'token'; readonly model: string; readonly token: string | number }
  readonly force: boolean
}

export interface PlannedTokenizer {
  readonly source: 'union' | 'base' | { readonly model: string }
  readonly tokens: Readonly<Record<string, PlannedToken>>
  readonly padToMultipleOf?: number
}

type RecipeDType = 'F64' | 'F32' | 'F16' | 'BF16'

/** A merge as either dialect describes it. Plain data. */
export interface MergePlan {
  readonly method: string
  /** One slice without layers: whole models. */
  readonly slices: readonly MergeSlice[]
  readonly base?: string
  /** For all slices; of several the first that knows a parameter counts. */
  readonly parameters: readonly Settings[]
  /** Where `parameters` stand in the recipe, in the same order. */
  readonly parameterPaths: readonly Path[]
  /** Of the output; absent: as the target's tensors. */
  readonly dtype?: RecipeDType
  readonly tokenizer?: PlannedTokenizer
  /** Jinja text, the name of a known one, or `auto`. */
  readonly chatTemplate?: string
  /** What gradients are for embedding and head: `ends`, the nearest layer; `start`, 0 as in mergekit. */
  readonly outside: 'ends' | 'start'
  /** Defaults of parameters and conventions of the methods. */
  readonly conventions: 'paper' | 'mergekit'
  /** Where the merge stands in the recipe. */
  readonly path: Path
}
