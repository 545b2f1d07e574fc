import { describe, expect, it } from 'vitest'
import { measure, type Scores } from './evaluate.js'
import { type Laboratory, STAGES } from './laboratory.js'
import { createDraws } from './random.js'
import { PARTS, type Part } from './rows.js'
import { untrained } from './stage.js'
import { tableOf } from './table.js'
import { widen } from './widen.js'
import { createWorld, DOCUMENT_TOKENS, type Letter, NEW, ORIGINAL, TASKS, VOCABULARY } from './world.js'

const words = (ids: readonly number[]) => ids.map((id) => VOCABULARY[id]!)
const letters: readonly Letter[] = [...ORIGINAL, ...NEW]

describe('the world', () => {
  it('has 128 tokens, and documents of 64 that follow from the seed', () => {
    expect(new Set(VOCABULARY).size).toBe(128)
    for (const letter of letters) {
      const of = (seed: number) => createWorld(seed).document(letter, createDraws(seed, 'x'))
      expect(of(1)).toHaveLength(DOCUMENT_TOKENS)
      expect(of(1)).toEqual(of(1))
      expect(of(1)).not.toEqual(of(2))
      expect(words(of(1))[0]).toBe('<bos>')
    }
  })

  it('asks about held-out names in evaluation alone, and never in raw text as an instruction', () => {
    const world = createWorld(3)
    const namesOf = (heldOut: boolean) => {
      const draws = createDraws(3, 'facts asked')
      const asked = Array.from({ length: 200 }, () =>
        words(world.instruction('c', 'fact', draws, heldOut).prompt),
      )
      return new Set(asked.flat().filter((word) => /^[A-Z]/.test(word)))
    }
    const [trained, evaluated] = [namesOf(false), namesOf(true)]
    expect([trained.size, evaluated.size]).toEqual([10, 6])
    expect([...evaluated].filter((name) => trained.has(name))).toEqual([])
    const text = words(world.document('a', createDraws(3, 'text')))
    expect(text.filter((word) => ['<user>', '<asst>', '<end>', '@json'].includes(word))).toEqual([])
  })

  it('answers what it asks: reverse and flip turn the words around', () => {
    const world = createWorld(5)
    for (const task of TASKS) {
      const { prompt, answer } = world.instruction('d', task, createDraws(5, task), true)
      expect([words(prompt)[1], words(prompt).at(-1), words(answer).at(-1)]).toEqual([
        '<user>',
        '<asst>',
        '<end>',
      ])
      const said = words(prompt).slice(4, -1)
      if (task === 'reverse' || task === 'flip') expect(words(answer).slice(0, -1)).toEqual(said.toReversed())
      if (task === 'repeat' || task === 'same') expect(words(answer).slice(0, -1)).toEqual(said)
    }
  })
})

describe('the stages', () => {
  it('need what stands before them, and the tables name nothing else', () => {
    const names = STAGES.map(({ name }) => name)
    expect(new Set(names).size).toBe(names.length)
    STAGES.forEach(({ needs }, i) => {
      for (const need of needs) expect(names.slice(0, i)).toContain(need)
    })
    for (const { methods } of PARTS)
      for (const { stages } of methods) for (const stage of stages) expect(names).toContain(stage)
  })
})

describe('a table', () => {
  const scores = (x: number, documents = 2): Scores => ({
    ...{ originalPerplexity: documents, newPerplexity: 2, originalInstructions: x, newInstructions: 0.5 },
    tasks: Object.fromEntries(TASKS.map((task) => [task, [x, 0.5]])) as unknown as Scores['tasks'],
  })

  it('has each method with the parameter that the development split chooses, on the seeds that have it', async () => {
    const laboratory = (seed: number, dev: Record<string, number>): Laboratory => ({
      seed,
      costs: () => ({ cpuSeconds: 0, commits: [] }),
      scores: async (name, split) =>
        split === 'dev' ? scores(dev[name]!) : name === 'b' && seed === 1 ? undefined : scores(0.1 * seed),
    })
    const part: Part = {
      ...{ name: 'main', title: 'Main', about: '', split: 'test', isCommon: false },
      methods: [{ title: 'merge', stages: ['a', 'b', 'c'] }],
    }
    const laboratories = [
      laboratory(1, { a: 0.1, b: 0.6, c: 0.9 }),
      laboratory(2, { a: 0.1, b: 0.9, c: 0.2 }),
    ]
    const [row] = await tableOf(part, laboratories)
    expect(row).toMatchObject({ stage: 'b', isChosen: true, seeds: [2] })
  })
})

describe('a wider model', () => {
  it('computes what it did', async () => {
    const base = untrained(4)
    const world = createWorld(4)
    const amounts = { documents: 1, items: 7 }
    const [narrow, wide] = [base, widen(base, 4, 4)]
    expect(wide.tensors.get('model.layers.0.mlp.down_proj.weight')!.shape).toEqual([64, 768])
    const [before, after] = [
      await measure(narrow, world, 4, 'dev', amounts),
      await measure(wide, world, 4, 'dev', amounts),
    ]
    expect(after.originalPerplexity).toBeCloseTo(before.originalPerplexity, 3)
    expect(after.newPerplexity).toBeCloseTo(before.newPerplexity, 3)
  })
})
