import { createEvaluatedModel, measureRouting, sharesByLayer } from '@polygraft/evaluate'
import { observeTokens, type TextTokenizer } from '@polygraft/model'
import type {
  ChatAnswer,
  Choices,
  LanguageRouting,
  LanguageText,
  Message,
  OnPiece,
  Piece,
} from './chat-api.js'
import type { LoadedModel } from './chat-model.js'
import { traceModel } from './trace-model.js'

/** Tokens of a typed text that are shown one by one. */
const SHOWN_TOKENS = 96

/** Streams an answer. @throws ModelError as the generator; the signal's reason. */
export async function answer(
  loaded: LoadedModel,
  messages: readonly Message[],
  maxNewTokens: number,
  onPiece: OnPiece,
  signal: AbortSignal,
): Promise<ChatAnswer> {
  const { tokenizer, generator, endTokens, traced } = loaded
  const prompt = tokenizer.encodeChat(messages)
  const started = performance.now()
  const stream = generator.stream(prompt, { maxNewTokens, endTokens, signal })
  // Where a piece's first token lies; its experts are known a step later than its text.
  const found: { text: string; position: number }[] = []
  const choicesOf = (piece: { position: number } | undefined) => piece && traced.choicesAt(piece.position)
  let position = prompt.length
  for (;;) {
    const step = await stream.next()
    if (step.done) {
      const { finishReason, tokens } = step.value
      const pieces = found.map((piece) => pieceOf(piece.text, choicesOf(piece)))
      return { pieces, finishReason, newTokens: tokens.length, elapsedMs: performance.now() - started }
    }
    onPiece(step.value, choicesOf(found.at(-1)))
    found.push({ text: step.value, position })
    position = traced.length() + 1
  }
}

/** Runs texts through a mixture: shares by layer, and the first tokens with their experts. */
export async function route(
  loaded: LoadedModel,
  texts: readonly LanguageText[],
  signal: AbortSignal,
): Promise<readonly LanguageRouting[]> {
  const { tokenizer, model, endTokens } = loaded
  const { encode } = createEvaluatedModel(model, tokenizer, endTokens)
  const results: LanguageRouting[] = []
  for (const { language, documents } of texts) {
    const encoded = documents.map(encode).filter((tokens) => tokens.length > 0)
    const layers = await measureRouting(model, encoded, signal)
    const shares = sharesByLayer(layers, model.dimensions.numLayers)
    const tokens = layers[0]?.load.tokens ?? 0
    results.push({ language, tokens, shares, pieces: await firstPieces(loaded, encoded[0] ?? []) })
  }
  return results
}

/** Tokens are shown where their characters are whole. */
async function firstPieces(
  { model, tokenizer }: LoadedModel,
  document: readonly number[],
): Promise<readonly Piece[]> {
  const tokens = document.slice(0, Math.min(SHOWN_TOKENS, model.maxPositions))
  const { model: watched, choicesAt } = traceModel(model)
  await observeTokens(watched, tokens, {})
  const pieces: Piece[] = []
  let begin = 0
  for (let end = 1; end <= tokens.length; end++) {
    const text = textOf(tokenizer, tokens, begin, end)
    if (text.endsWith('\ufffd') && end < tokens.length) continue
    if (text !== '') pieces.push(pieceOf(text, choicesAt(begin)))
    begin = end
  }
  return pieces
}

/** Of tokens [begin, end), as they read after the one before them. */
function textOf({ decode }: TextTokenizer, tokens: readonly number[], begin: number, end: number): string {
  const from = Math.max(0, begin - 1)
  return decode(tokens.slice(from, end)).slice(decode(tokens.slice(from, begin)).length)
}

function pieceOf(text: string, choices: Choices | undefined): Piece {
  return choices ? { text, choices } : { text }
}
