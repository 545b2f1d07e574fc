import { createDraws, type Draws } from './random.js'

/*
 * A small world and four invented languages that talk about it. The world is 48 facts about 16 people; every language says the same things with
 * words and a word order of its own: A is SVO, B SOV with postpositions, an accusative and the question word last, C VSO with an accusative,
 * D SOV with prepositions. A and B are the original languages, C and D the new ones. All derives from a seed.
 */

export type Letter = 'a' | 'b' | 'c' | 'd'
export const ORIGINAL: readonly Letter[] = ['a', 'b']
export const NEW: readonly Letter[] = ['c', 'd']
const LANGUAGES = [...ORIGINAL, ...NEW]
/** The expert of a language where each new one has its own: 0 for the original ones. */
export const expertOf = (letter: Letter) => NEW.indexOf(letter) + 1

const SPECIAL = ['<pad>', '<unk>', '<bos>', '<eos>', '<user>', '<asst>', '<end>']
const PUNCTUATION = ['.', '?', ':', ',', '[', ']']
/** Operators that mean the same in every language; in instructions only. */
const UNIVERSAL = ['@same', '@flip', '@json']
const NAMES = 'Ana Bo Cleo Dan Eva Finn Gus Hana Ivo Jun Kai Lea Mio Nia Omar Pia'.split(' ')
/** Never asked about in a training instruction. */
const HELD_OUT = NAMES.slice(10)
const numbered = (word: string, count: number) => Array.from({ length: count }, (_, i) => `${word}${i}`)
const [PLACES, OBJECTS, JOBS] = [numbered('place', 12), numbered('object', 16), numbered('job', 8)]
const NOUNS = [...PLACES, ...OBJECTS, ...JOBS]
const GRAMMAR = 'live like work put in is acc yes no and or'.split(' ')
/** No two languages share a word for these; other words mean different things in different languages. */
const OPERATORS = 'where who what say repeat reverse'.split(' ')
const SHARED_WORDS = 72
const WORDS = numbered('w', SHARED_WORDS + LANGUAGES.length * OPERATORS.length)
/** Every token in the order of ids. */
export const VOCABULARY = [...SPECIAL, ...PUNCTUATION, ...UNIVERSAL, ...NAMES, ...WORDS]
const IDS = new Map(VOCABULARY.map((token, id) => [token, id]))
export const DOCUMENT_TOKENS = 64

export const TASKS = ['where', 'fact', 'repeat', 'reverse', 'json', 'same', 'flip'] as const
export type Task = (typeof TASKS)[number]

/** A prompt and its answer as token ids. */
export interface Instruction {
  readonly prompt: readonly number[]
  readonly answer: readonly number[]
}

export interface World {
  /** 64 tokens of raw text, <bos> first. */
  document(letter: Letter, draws: Draws): readonly number[]
  /** `heldOut`: ask about names that training never asks about; it matters for "fact" alone. */
  instruction(letter: Letter, task: Task, draws: Draws, heldOut: boolean): Instruction
}

export function createWorld(seed: number): World {
  const draws = createDraws(seed, 'facts')
  const values = [['live', PLACES] as const, ['like', OBJECTS] as const, ['work', JOBS] as const]
  const facts = NAMES.flatMap((name) =>
    values.map(([verb, from]) => ({ name, verb, value: draws.pick(from) })),
  )
  const languages = new Map(LANGUAGES.map((letter) => [letter, createLanguage(letter, seed)]))
  const ids = (words: readonly string[]) => words.map((word) => IDS.get(word)!)
  return {
    document(letter, draws) {
      const language = languages.get(letter)!
      const tokens = ['<bos>']
      while (tokens.length < DOCUMENT_TOKENS) {
        const kind = draws.next()
        tokens.push(...(kind < 0.35 ? factsPiece : kind < 0.8 ? story : speech)(language, draws, facts))
      }
      return ids(tokens.slice(0, DOCUMENT_TOKENS))
    },
    instruction(letter, task, draws, heldOut) {
      const [prompt, answer] = instructionWords(languages.get(letter)!, task, draws, facts, heldOut)
      return { prompt: ids(['<bos>', '<user>', ...prompt, '<asst>']), answer: ids([...answer, '<end>']) }
    },
  }
}

interface Fact {
  readonly name: string
  readonly verb: string
  readonly value: string
}

type Language = ReturnType<typeof createLanguage>

function createLanguage(letter: Letter, seed: number) {
  const shared = createDraws(seed, `language ${letter}`).sample(
    WORDS.slice(0, SHARED_WORDS),
    NOUNS.length + GRAMMAR.length,
  )
  const first = SHARED_WORDS + LANGUAGES.indexOf(letter) * OPERATORS.length
  const lexicon = new Map([
    ...[...NOUNS, ...GRAMMAR].map((concept, i) => [concept, shared[i]!] as const),
    ...OPERATORS.map((operator, i) => [operator, WORDS[first + i]!] as const),
  ])
  const isVerbFirst = letter === 'a' || letter === 'c'
  /** Concepts to words; names and punctuation stay. */
  const say = (...concepts: readonly string[]) => concepts.map((concept) => lexicon.get(concept) ?? concept)
  const inside = (place: string) => (letter === 'b' ? [place, 'in'] : ['in', place])
  const object = (thing: string) => (letter === 'b' || letter === 'c' ? [thing, 'acc'] : [thing])
  const clause = (subject: string, verb: string, rest: readonly string[]) =>
    letter === 'a'
      ? say(subject, verb, ...rest)
      : letter === 'c'
        ? say(verb, subject, ...rest)
        : say(subject, ...rest, verb)
  const question = (wh: string, ...rest: readonly string[]) =>
    letter === 'b' ? say(...rest, wh, '?') : say(wh, ...rest, '?')
  return {
    say,
    put: (name: string, thing: string, place: string) => [
      ...clause(name, 'put', [...object(thing), ...inside(place)]),
      '.',
    ],
    located: (thing: string, place: string, end: string) => [...clause(thing, 'is', inside(place)), end],
    whereIs: (thing: string) => question('where', ...(isVerbFirst ? ['is', thing] : [thing, 'is'])),
    whoPut: (thing: string) =>
      question('who', ...(isVerbFirst ? ['put', ...object(thing)] : [...object(thing), 'put'])),
    fact({ name, verb, value }: Fact) {
      const rest = verb === 'live' ? inside(value) : verb === 'like' ? object(value) : [value]
      return [...clause(name, verb, rest), '.']
    },
    factQuestion: ({ name, verb }: Fact) =>
      question(verb === 'live' ? 'where' : 'what', ...(letter === 'c' ? [verb, name] : [name, verb])),
  }
}

function factsPiece(language: Language, draws: Draws, facts: readonly Fact[]): string[] {
  return draws
    .sample(facts, 3)
    .flatMap((fact) =>
      draws.next() < 0.5
        ? language.fact(fact)
        : [...language.factQuestion(fact), ...language.say(fact.value, '.')],
    )
}

function eventsOf(draws: Draws) {
  const count = 2 + draws.below(2)
  const [names, things, places] = [NAMES, OBJECTS, PLACES].map((from) => draws.sample(from, count))
  return names!.map((name, i) => ({ name, thing: things![i]!, place: places![i]! }))
}

function story(language: Language, draws: Draws): string[] {
  const events = eventsOf(draws)
  const told = events.flatMap(({ name, thing, place }) => language.put(name, thing, place))
  const recaps = [0, 1, 2].flatMap(() => {
    const { name, thing, place } = draws.pick(events)
    const kind = draws.next()
    if (kind < 0.3) return language.located(thing, place, '.')
    if (kind < 0.55) return [...language.whereIs(thing), ...language.say(place, '.')]
    if (kind < 0.75) return [...language.whoPut(thing), name, '.']
    const asked = draws.pick(events).place
    return [...language.located(thing, asked, '?'), ...language.say(asked === place ? 'yes' : 'no', '.')]
  })
  return [...told, ...recaps]
}

function speech(language: Language, draws: Draws): string[] {
  const nouns = draws.sample(NOUNS, 2 + draws.below(3))
  const parts = [
    ['say', nouns] as const,
    ['repeat', nouns] as const,
    ['reverse', nouns.toReversed()] as const,
  ]
  return parts.flatMap(([operator, said]) => language.say(operator, ':', ...said, '.'))
}

function instructionWords(
  language: Language,
  task: Task,
  draws: Draws,
  facts: readonly Fact[],
  heldOut: boolean,
): readonly [readonly string[], readonly string[]] {
  if (task === 'where') {
    const events = eventsOf(draws)
    const { thing, place } = draws.pick(events)
    const told = events.flatMap((event) => language.put(event.name, event.thing, event.place))
    return [[...told, ...language.whereIs(thing)], language.say(place)]
  }
  if (task === 'fact') {
    const fact = draws.pick(facts.filter(({ name }) => HELD_OUT.includes(name) === heldOut))
    return [language.factQuestion(fact), language.say(fact.value)]
  }
  const nouns = language.say(...draws.sample(NOUNS, 2 + draws.below(3)))
  const operator = UNIVERSAL.includes(`@${task}`) ? `@${task}` : language.say(task)[0]!
  const listed = ['[', ...nouns.flatMap((noun, i) => (i > 0 ? [',', noun] : [noun])), ']']
  const answer = task === 'json' ? listed : task === 'reverse' || task === 'flip' ? nouns.toReversed() : nouns
  return [[operator, ':', ...nouns], answer]
}
