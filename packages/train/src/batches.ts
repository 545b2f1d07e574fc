import { randomValues } from '@polygraft/kernels'
import { ModelError } from '@polygraft/tensor'
import type { Sequence } from './encode-documents.js'
import type { Batch } from './loss-and-gradients.js'

/** The data of one language. */
export interface LanguageData {
  readonly language: string
  readonly sequences: readonly Sequence[]
  /** Its share of the tokens, relative to the others'. */
  readonly weight: number
  readonly isOriginal?: boolean
  readonly experts?: readonly number[]
}

/** What has been drawn of each language: all that a run must know to go on. */
export type Drawn = readonly { readonly documents: number; readonly tokens: number }[]

/**
 * The next batch: documents one after the other while they fit into `batchTokens`, each from the language that is furthest behind its share. A
 * language's documents come in an order shuffled anew every epoch, from (seed, language, epoch) alone.
 */
export function drawBatch(
  data: readonly LanguageData[],
  drawn: Drawn,
  batchTokens: number,
  seed: number,
): { readonly batch: Batch; readonly drawn: Drawn } {
  const counts = drawn.map((each) => ({ ...each }))
  const chosen: { sequence: Sequence; from: LanguageData }[] = []
  for (let used = 0; ; ) {
    const l = furthestBehind(data, counts)
    const from = data[l]!
    const count = counts[l]!
    const sequence = from.sequences[documentAt(from, count.documents, seed)]!
    const { length } = sequence.tokens
    if (used + length > batchTokens) {
      if (chosen.length > 0) break
      throw new ModelError({
        code: 'bad-batch',
        message: 'A batch does not hold a document',
        expected: `at least ${length} tokens`,
        received: `${batchTokens}`,
        next: 'Choose larger batches.',
      })
    }
    used += length
    count.documents++
    count.tokens += length
    chosen.push({ sequence, from })
  }
  return { batch: batchOf(chosen), drawn: counts }
}

function batchOf(chosen: readonly { sequence: Sequence; from: LanguageData }[]): Batch {
  const length = chosen.reduce((sum, { sequence }) => sum + sequence.tokens.length, 0)
  const batch = { tokens: new Int32Array(length), targets: new Int32Array(length) }
  let at = 0
  const segments = chosen.map(({ sequence: { tokens, targets }, from: { isOriginal, experts } }) => {
    batch.tokens.set(tokens, at)
    batch.targets.set(targets, at)
    const begin = at
    at += tokens.length
    return { begin, end: at, ...(isOriginal ? { isOriginal } : {}), ...(experts ? { experts } : {}) }
  })
  return { ...batch, segments }
}

/** Ties go to the first. */
function furthestBehind(data: readonly LanguageData[], counts: Drawn): number {
  let best = 0
  const at = (l: number) => counts[l]!.tokens / data[l]!.weight
  for (let l = 1; l < data.length; l++) if (at(l) < at(best)) best = l
  return best
}

const orders = new WeakMap<readonly Sequence[], { key: string; order: Int32Array }>()

/** Index of the n-th document drawn of a language. */
function documentAt({ language, sequences }: LanguageData, n: number, seed: number): number {
  const epoch = Math.floor(n / sequences.length)
  const key = `${seed} ${language} ${epoch}`
  const known = orders.get(sequences)
  const made =
    known?.key === key ? known : { key, order: shuffled(sequences.length, seed, `${language} ${epoch}`) }
  orders.set(sequences, made)
  return made.order[n % sequences.length]!
}

/** 0 ... length - 1 in the order of random keys. */
function shuffled(length: number, seed: number, name: string): Int32Array {
  const keys = new Float32Array(length)
  randomValues('uniform', 1, seed, name, 0, keys)
  return Int32Array.from(keys.keys()).sort((a, b) => keys[a]! - keys[b]! || a - b)
}
