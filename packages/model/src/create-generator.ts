import { ropeOf } from '@polygraft/architectures'
import { ModelError } from '@polygraft/tensor'
import { type AnswerText, createAnswerText } from './_answer-text.js'
import type { Cache } from './backend.js'
import type { Model, TokenSpan } from './open-model.js'
import type { TextTokenizer } from './open-tokenizer.js'
import { type Sampling, sampleToken } from './sample-token.js'

export interface AnswerOptions extends Sampling {
  /** Tokens that the answer has at most. Default: as many as the model's context has room for. */
  readonly maxNewTokens?: number
  /** Strings that end the answer, and are left out of its text. */
  readonly stop?: readonly string[]
  /** Tokens that end the answer (`readEndTokens`). Default: none. */
  readonly endTokens?: readonly number[]
  readonly signal?: AbortSignal
}

/** A whole answer. */
export interface Answer {
  readonly promptTokens: readonly number[]
  /** The new tokens, the end token included. */
  readonly tokens: readonly number[]
  readonly text: string
  /** `stop`: an end token or a stop string came; `length`: the limit was reached. */
  readonly finishReason: 'stop' | 'length'
}

/** Generates text with one model. */
export interface Generator {
  /**
   * One answer, its text piece by piece as it comes about. Keys and values of the last answer are kept, so that a prompt that begins as it did
   * (the next turn of a conversation) is computed from where they differ.
   * @throws ModelError "empty-prompt", "too-long", "bad-token", "not-finite"; the signal's reason once it is aborted.
   */
  stream(prompt: readonly number[], options?: AnswerOptions): AsyncGenerator<string, Answer, void>
  /** Answers to several prompts, computed together; each is what it would be alone. */
  complete(prompts: readonly (readonly number[])[], options?: AnswerOptions): Promise<Answer[]>
  /** Frees what was kept. The model is left open. */
  close(): void
}

/** Tokens of a prompt that are computed at once. */
const PROMPT_CHUNK = 256
/** Caches grow by so many positions. */
const CACHE_GRAIN = 256
/** Computing blocks the thread; after so long others have a turn, the one who aborts among them. */
const TURN_MS = 20

interface Sequence {
  readonly prompt: readonly number[]
  /** Prompt and answer. */
  readonly tokens: number[]
  readonly limit: number
  readonly text: AnswerText
  readonly pieces: string[]
  cache: Cache
  /** Tokens whose keys and values are in the cache. */
  computed: number
  finishReason?: 'stop' | 'length'
}

interface Kept {
  readonly cache: Cache
  readonly tokens: readonly number[]
}

export function createGenerator(model: Model, tokenizer: TextTokenizer): Generator {
  const { backend, maxPositions } = model
  let kept: Kept | undefined
  // Dynamic RoPE turns all keys by the length of the whole sequence: those of a shorter one are not the same.
  const reuses = ropeOf(model.family, model.config).scaling?.rope_type !== 'dynamic'

  function begin(prompt: readonly number[], options: AnswerOptions): Sequence {
    checkPrompt(prompt, maxPositions)
    const { maxNewTokens = maxPositions, stop = [] } = options
    const limit = Math.min(maxPositions, prompt.length + maxNewTokens)
    const text = createAnswerText(tokenizer, stop)
    const cache = model.createCache(capacityFor(prompt.length + 1, limit))
    const sequence: Sequence = { prompt, tokens: [...prompt], limit, text, pieces: [], cache, computed: 0 }
    if (prompt.length === limit) sequence.finishReason = 'length'
    return sequence
  }

  /** Takes what the kept answer has in common with the prompt; its last token is always computed. */
  function takeKept(sequence: Sequence): void {
    if (!kept || !reuses) return
    const { prompt, cache } = sequence
    const common = kept.tokens.findIndex((token, i) => token !== prompt[i])
    const count = Math.min(common < 0 ? kept.tokens.length : common, prompt.length - 1)
    if (count > 0) backend.copyCache(kept.cache, cache, count)
    sequence.computed = count
  }

  function keep({ cache, tokens, computed }: Sequence): void {
    if (kept) backend.freeCache(kept.cache)
    kept = { cache, tokens: tokens.slice(0, computed) }
  }

  /** Makes room for one more token. */
  function grow(sequence: Sequence): void {
    const { tokens, cache, computed, limit } = sequence
    if (tokens.length <= cache.capacity) return
    sequence.cache = model.createCache(capacityFor(tokens.length * 2, limit))
    backend.copyCache(cache, sequence.cache, computed)
    backend.freeCache(cache)
  }

  /** One step of all sequences that go on: a piece of the prompt, or one token. */
  async function advance(sequences: readonly Sequence[], options: AnswerOptions): Promise<void> {
    const active = sequences.filter(({ finishReason }) => finishReason === undefined)
    const spans = active.map((sequence): TokenSpan => {
      grow(sequence)
      const { tokens, computed, cache } = sequence
      const next = tokens.slice(computed, computed + PROMPT_CHUNK)
      const isLast = computed + next.length === tokens.length
      const wanted = isLast ? 'last' : 'none'
      return { cache, begin: computed, tokens: next, wanted, length: tokens.length }
    })
    const positions = active.map(({ tokens }) => tokens.length)
    const drawn = await draw(spans, positions, options)
    let row = 0
    for (const [i, sequence] of active.entries()) {
      const { tokens, wanted } = spans[i]!
      sequence.computed += tokens.length
      if (wanted === 'none') continue
      append(sequence, drawn[row]!, options)
      row++
    }
  }

  /** The next token of each span that wants one. */
  async function draw(spans: readonly TokenSpan[], positions: readonly number[], sampling: Sampling) {
    if ((sampling.temperature ?? 0) === 0) return model.forwardGreedy(spans)
    const logits = await model.forward(spans)
    const size = model.dimensions.vocabularySize
    return positions
      .filter((_, i) => spans[i]!.wanted === 'last')
      .map((position, row) => sampleToken(logits.subarray(row * size, (row + 1) * size), sampling, position))
  }

  /** Steps until all sequences have ended; comes back after each. */
  async function* steps(sequences: readonly Sequence[], options: AnswerOptions): AsyncGenerator<void, void> {
    let turn = performance.now()
    while (sequences.some(({ finishReason }) => finishReason === undefined)) {
      options.signal?.throwIfAborted()
      await advance(sequences, options)
      yield
      if (performance.now() - turn < TURN_MS) continue
      await new Promise((resolve) => setTimeout(resolve))
      turn = performance.now()
    }
  }

  return {
    async *stream(prompt, options = {}) {
      const sequence = begin(prompt, options)
      try {
        takeKept(sequence)
        let given = 0
        for await (const _ of steps([sequence], options))
          for (; given < sequence.pieces.length; given++) yield sequence.pieces[given]!
        return answerOf(sequence)
      } finally {
        keep(sequence)
      }
    },
    async complete(prompts, options = {}) {
      const sequences: Sequence[] = []
      try {
        for (const prompt of prompts) sequences.push(begin(prompt, options))
        for await (const _ of steps(sequences, options));
        return sequences.map(answerOf)
      } finally {
        for (const { cache } of sequences) backend.freeCache(cache)
      }
    },
    close() {
      if (kept) backend.freeCache(kept.cache)
      kept = undefined
    },
  }
}

const capacityFor = (tokens: number, limit: number) =>
  Math.min(limit, Math.ceil(tokens / CACHE_GRAIN) * CACHE_GRAIN)

function append(sequence: Sequence, token: number, { endTokens = [] }: AnswerOptions): void {
  sequence.tokens.push(token)
  const isEnd = endTokens.includes(token)
  if (!isEnd) {
    const { text, stopped } = sequence.text.push(token)
    if (text !== '') sequence.pieces.push(text)
    if (stopped) sequence.finishReason = 'stop'
  }
  if (isEnd) sequence.finishReason = 'stop'
  else if (sequence.finishReason === undefined && sequence.tokens.length >= sequence.limit)
    sequence.finishReason = 'length'
  if (sequence.finishReason === undefined) return
  const rest = sequence.text.end()
  if (rest !== '') sequence.pieces.push(rest)
}

function answerOf({ prompt, tokens, pieces, finishReason }: Sequence): Answer {
  return {
    promptTokens: prompt,
    tokens: tokens.slice(prompt.length),
    text: pieces.join(''),
    finishReason: finishReason ?? 'length',
  }
}

function checkPrompt(prompt: readonly number[], maxPositions: number): void {
  if (prompt.length === 0)
    throw new ModelError({
      code: 'empty-prompt',
      message: 'The prompt has no token',
      next: 'Give a prompt: this tokenizer puts no token before a text.',
    })
  if (prompt.length <= maxPositions) return
  throw new ModelError({
    code: 'too-long',
    message: "The prompt is longer than the model's context",
    expected: `at most ${maxPositions} tokens`,
    received: `${prompt.length} tokens`,
    next: 'Shorten the prompt.',
  })
}
