import { describe, expect, it } from 'vitest'
import { createDraws } from './random.js'
import { formatReport } from './report.js'
import { STAGES } from './stages.js'
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
  it('need what stands before them', () => {
    const names = STAGES.map(({ name }) => name)
    STAGES.forEach(({ needs }, i) => {
      for (const need of needs) expect(names.slice(0, i)).toContain(need)
    })
  })

  it('are reported as means with standard errors, and a short run says that it is one', () => {
    const scores = (x: number) => ({
      originalPerplexity: x,
      newPerplexity: 2,
      originalInstructions: x / 10,
      newInstructions: 0.5,
    })
    const facts = { command: 'c', commit: 'x', seeds: [0, 1], scale: 0.5, split: 'dev' }
    const report = formatReport([{ title: 'm', scores: [scores(2), scores(4)] }], facts)
    expect(report).toContain('| m | 3.00 ± 1.00 | 2.00 ± 0.00 | 30.0 ± 10.0 | 50.0 ± 0.0 |')
    expect(report).toContain('Shortened')
  })
})
