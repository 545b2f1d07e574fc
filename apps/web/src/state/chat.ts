import type { Problem } from '@polygraft/tensor'
import { signal } from '@preact/signals'
import { proxy, type Remote, wrap } from 'comlink'
import type { Recipe } from '../worker/api.js'
import type {
  ChatAnswer,
  ChatApi,
  ChatModel,
  Device,
  LanguageRouting,
  LanguageText,
  Message,
  Part,
  Piece,
} from '../worker/chat-api.js'
import { openings } from './models.js'
import { problemsOf } from './worker.js'

/** One model beside the others, with what it said. */
export interface Column {
  readonly part: Part
  readonly status: 'idle' | 'loading' | 'answering' | 'ready'
  /** Tensors loaded, of all. */
  readonly progress: readonly [done: number, total: number]
  readonly model?: ChatModel
  /** One for each prompt, in order; the last grows. */
  readonly answers: readonly (readonly Piece[])[]
  readonly last?: Pick<ChatAnswer, 'finishReason' | 'newTokens' | 'elapsedMs'>
  readonly problems: readonly Problem[]
}

const MAX_NEW_TOKENS = 128

export const device = signal<Device>('cpu')
export const prompts = signal<readonly string[]>([])
export const columns = signal<ReadonlyMap<Part, Column>>(new Map())
export const routing = signal<readonly LanguageRouting[]>([])
export const routingProblems = signal<readonly Problem[]>([])

/** What each worker has loaded, as text. */
const loadedWith = new Map<Part, string>()
const workers = new Map<Part, Remote<ChatApi>>()

function workerOf(part: Part): Remote<ChatApi> {
  const known = workers.get(part)
  if (known) return known
  const made = wrap<ChatApi>(
    new Worker(new URL('../worker/chat-main.ts', import.meta.url), { type: 'module' }),
  )
  workers.set(part, made)
  return made
}

/** The models that a recipe lets one talk to. */
export function partsOf({ post }: Recipe): readonly Part[] {
  return post === undefined ? ['start'] : ['post', 'start', 'result']
}

export const isBusy = () =>
  [...columns.value.values()].some(({ status }) => status === 'loading' || status === 'answering')

/** Asks all of a recipe's models the next question. */
export async function ask(recipe: Recipe, prompt: string): Promise<void> {
  prompts.value = [...prompts.value, prompt]
  await Promise.all(partsOf(recipe).map((part) => answerLast(recipe, part)))
}

/** Loads what the recipe has become, and answers the last question anew. */
export async function regenerate(recipe: Recipe, part: Part): Promise<void> {
  if (prompts.value.length === 0) return
  const answers = columnOf(part).answers.slice(0, prompts.value.length - 1)
  change(part, { answers })
  await answerLast(recipe, part)
}

export async function stop(): Promise<void> {
  await Promise.all([...workers.values()].map((each) => each.stop()))
}

/** Forgets the conversation. */
export function clear(): void {
  prompts.value = []
  for (const part of columns.value.keys()) change(part, { answers: [], problems: [] })
}

/** Which experts the tokens of texts take, in a mixture of the recipe. */
export async function routeTexts(recipe: Recipe, part: Part, texts: readonly LanguageText[]): Promise<void> {
  routingProblems.value = []
  try {
    await load(recipe, part)
    routing.value = await workerOf(part).route(texts)
    change(part, { status: 'ready' })
  } catch (error) {
    routingProblems.value = problemsOf(error)
    change(part, { status: 'idle' })
  }
}

function columnOf(part: Part): Column {
  return columns.value.get(part) ?? { part, status: 'idle', progress: [0, 1], answers: [], problems: [] }
}

function change(part: Part, changed: Partial<Column>): void {
  columns.value = new Map([...columns.value, [part, { ...columnOf(part), ...changed }]])
}

async function load(recipe: Recipe, part: Part): Promise<void> {
  const wanted = JSON.stringify(part === 'post' ? [recipe.post, device.value] : [recipe, device.value])
  if (loadedWith.get(part) === wanted) return
  loadedWith.delete(part)
  change(part, { status: 'loading', progress: [0, 1], problems: [] })
  const keys = [recipe.base, recipe.post, recipe.cpt].filter((key) => key !== undefined)
  const needed = new Map(keys.map((key) => [key, openings.get(key)!] as const))
  const onProgress = proxy((done: number, total: number) => change(part, { progress: [done, total] }))
  const source = { recipe, part, device: device.value, openings: needed }
  const model = await workerOf(part).load(source, onProgress)
  loadedWith.set(part, wanted)
  change(part, { model })
}

/** A model that cannot answer says so in its own column; the others go on. */
async function answerLast(recipe: Recipe, part: Part): Promise<void> {
  const turn = prompts.value.length - 1
  try {
    await load(recipe, part)
    change(part, { status: 'answering', problems: [] })
    const messages = messagesOf(columnOf(part))
    const put = (pieces: readonly Piece[]) => {
      const { answers } = columnOf(part)
      // An answer that failed before leaves a gap.
      const filled = Array.from({ length: turn }, (_, i) => answers[i] ?? [])
      change(part, { answers: [...filled, pieces] })
    }
    // Pieces come by another channel than the answer, and may come after it.
    let ended = false
    const onPiece = proxy((text: string, choices?: Piece['choices']) => {
      if (ended) return
      const pieces = columnOf(part).answers[turn] ?? []
      const before = pieces.at(-1)
      put([...pieces.slice(0, -1), ...(before ? [choices ? { ...before, choices } : before] : []), { text }])
    })
    const { pieces, ...last } = await workerOf(part).answer(messages, MAX_NEW_TOKENS, onPiece)
    ended = true
    put(pieces)
    change(part, { status: 'ready', last })
  } catch (error) {
    change(part, { status: 'idle', problems: problemsOf(error) })
  }
}

function messagesOf({ answers }: Column): readonly Message[] {
  return prompts.value.flatMap((prompt, turn): Message[] => {
    const answered = answers[turn]
    const user: Message = { role: 'user', content: prompt }
    if (!answered || turn === prompts.value.length - 1) return [user]
    return [user, { role: 'assistant', content: answered.map(({ text }) => text).join('') }]
  })
}
