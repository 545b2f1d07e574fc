import type { Opening, Recipe } from './api.js'

/** The checkpoints that a recipe is about: its post-trained input, what the delta goes onto, and what comes out. */
export type Part = 'post' | 'start' | 'result'

/** Where a model computes. */
export type Device = 'cpu' | 'webgpu'

/** What is to answer. It need not be written anywhere: weights are computed as they are loaded. */
interface ChatSource {
  readonly recipe: Recipe
  readonly part: Part
  readonly device: Device
  /** Where the recipe's checkpoints come from, by key. */
  readonly openings: ReadonlyMap<string, Opening>
}

/** What was loaded. */
export interface ChatModel {
  /** The device's own name. */
  readonly device: string
  readonly numLayers: number
  /** Labels of the experts; none of a dense model. */
  readonly experts: readonly string[]
}

/** The experts that a token took in each layer, most probable first: [layer][k]; a dense layer has none. */
export type Choices = readonly (readonly number[])[]

/** A piece of text, and the experts of the first of its tokens; absent where that token was not computed. */
export interface Piece {
  readonly text: string
  readonly choices?: Choices
}

export interface Message {
  readonly role: 'user' | 'assistant'
  readonly content: string
}

export interface ChatAnswer {
  readonly pieces: readonly Piece[]
  readonly finishReason: 'stop' | 'length'
  readonly newTokens: number
  readonly elapsedMs: number
}

/** @param choices Of the piece before, which are known by now. */
export type OnPiece = (text: string, choices?: Choices) => void

/** A language's documents. */
export interface LanguageText {
  readonly language: string
  readonly documents: readonly string[]
}

/** Which experts a language's tokens take. */
export interface LanguageRouting {
  readonly language: string
  readonly tokens: number
  /** Of all choices in a layer, those of each expert: [layer][expert]; a dense layer has none. */
  readonly shares: readonly (readonly number[])[]
  /** The beginning of the first document, token by token. */
  readonly pieces: readonly Piece[]
}

/** What runs one model beside the page. Every method throws a `Failure`. */
export interface ChatApi {
  /** Loads a model in place of the one before. */
  load(source: ChatSource, onProgress: (done: number, total: number) => void): Promise<ChatModel>
  answer(messages: readonly Message[], maxNewTokens: number, onPiece: OnPiece): Promise<ChatAnswer>
  route(texts: readonly LanguageText[]): Promise<readonly LanguageRouting[]>
  /** Ends what `answer` or `route` is doing; it throws a problem of code 'cancelled'. */
  stop(): Promise<void>
}
