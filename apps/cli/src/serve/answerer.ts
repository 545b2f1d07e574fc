/** A message of a conversation, as chat templates take it. */
export interface ChatMessage {
  readonly role: string
  readonly content: string
}

/** What is to be continued: a conversation, or plain text. */
export type Prompt = { readonly messages: readonly ChatMessage[] } | { readonly text: string }

/** How an answer is made. What is left out is the model's own default. */
export interface AnswerOptions {
  readonly maxNewTokens?: number
  /** 0 is greedy. */
  readonly temperature?: number
  readonly topP?: number
  readonly topK?: number
  readonly minP?: number
  readonly seed?: number
  readonly stop?: readonly string[]
}

export interface AnswerEnd {
  /** `length`: the limit was reached; `stop`: an end token or stop string was. */
  readonly finishReason: 'stop' | 'length'
  readonly promptTokens: number
  readonly newTokens: number
}

/** A model that the server answers with. */
export interface Answerer {
  /** What clients call the model. */
  readonly id: string
  /** Gives the answer's text piece by piece, then how it ended. Aborting ends it with the signal's reason. */
  answer(prompt: Prompt, options: AnswerOptions, signal: AbortSignal): AsyncGenerator<string, AnswerEnd, void>
}
