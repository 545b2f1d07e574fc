import { createEvaluatedModel, measureRouterSamples } from '@polygraft/evaluate'
import { languageRouter } from '@polygraft/routing'
import { type Checkpoint, ModelError } from '@polygraft/tensor'
import type { GivenRouters } from '@polygraft/upcycle'
import { type Device, startModel } from './model.js'

/** Kinds of routers that are made of text: see `languageRouter`. */
export const TEXT_ROUTERS = ['means', 'lda'] as const
export type TextRouter = (typeof TEXT_ROUTERS)[number]

export const isTextRouter = (router: string): router is TextRouter =>
  TEXT_ROUTERS.some((kind) => kind === router)

/** What routers are made of. */
export interface ExpertTexts {
  /** Of experts 1, 2, ... */
  readonly labels: readonly string[]
  /** Of expert 0, 1, ... */
  readonly documents: readonly (readonly string[])[]
}

/**
 * Whose text is whose. With labels given, text in any other language is expert 0's; without, the first language is the original one, and
 * each of the others names an expert.
 * @throws ModelError "no-samples" naming the experts that no text is for.
 */
export function textsByExpert(
  texts: ReadonlyMap<string, readonly string[]>,
  labels: readonly string[] = [...texts.keys()].slice(1),
): ExpertTexts {
  const experts = ['the original languages', ...labels]
  const documents = experts.map((_, e) =>
    [...texts].flatMap(([language, own]) => (labels.indexOf(language) + 1 === e ? own : [])),
  )
  const missing = experts.filter((_, e) => documents[e]!.length === 0)
  if (missing.length === 0) return { labels, documents }
  throw new ModelError({
    code: 'no-samples',
    message: 'An expert has no text to make its router of',
    expected: `--text for ${experts.join(', ')}`,
    received: `none for ${missing.join(', ')}`,
  })
}

export interface TextRouterOptions {
  readonly kind: TextRouter
  /** Of each expert's documents, from the first on. */
  readonly maxTokens: number
  readonly threads: number | undefined
  readonly device: Device
  readonly signal: AbortSignal
}

/** Runs the dense model over the text, and makes a router for each layer of what it reads there. */
export async function routersFromText(
  base: Checkpoint,
  { documents }: ExpertTexts,
  { kind, maxTokens, threads, device, signal }: TextRouterOptions,
): Promise<GivenRouters> {
  const running = await startModel(base, threads === 0 ? 1 : threads, device)
  try {
    const { encode } = createEvaluatedModel(running.model, running.tokenizer, running.endTokens)
    const tokens = documents.map((own) => own.map(encode))
    const options = { withProducts: kind === 'lda', maxTokens, signal }
    const samples = await measureRouterSamples(running.model, tokens, options)
    const values = [...samples].map(([layer, own]) => [layer, languageRouter(own, { kind })] as const)
    const counts = [...(samples.get(0)?.tokens ?? [])]
    return { from: { kind, tokens: counts }, values: new Map(values) }
  } finally {
    await running.close()
  }
}
