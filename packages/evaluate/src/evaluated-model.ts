/** What an evaluation asks of a language model; `@polygraft/model` makes one of a checkpoint. */
export interface EvaluatedModel {
  /** Tokens that the model sees at most. */
  readonly contextLength: number
  /** Token ids of a text as the model expects it to begin, a begin token included where its tokenizer adds one. */
  encode(text: string): readonly number[]
  /** log p(tokens[i] | tokens[0 .. i)) for i in [from, tokens.length); natural logarithm. `from` is at least 1. */
  logProbabilities(tokens: readonly number[], from: number, signal?: AbortSignal): Promise<Float64Array>
  /** The greedy continuation of a prompt as text, up to an end token or one of `until`, which is left out. */
  generate(prompt: string, options: GenerateOptions): Promise<string>
}

export interface GenerateOptions {
  readonly until: readonly string[]
  readonly maxNewTokens: number
  readonly signal?: AbortSignal
}

/** How far a measure has come. Called after each document or item. */
export interface EvaluationProgress {
  readonly done: number
  readonly total: number
}

/** What every measure takes. */
export interface MeasureOptions {
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: EvaluationProgress) => void
}
