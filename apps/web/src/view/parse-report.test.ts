import { describe, expect, it } from 'vitest'
import { parseReport } from './parse-report.js'

const own = { checkpoint: 'a', languages: { el: { perplexity: 3, tokens: 9 } }, tasks: {} }
const step = { step: 1, loss: 2, rate: 0.1, gradientNorm: 1, tokens: 8, load: [], tokensPerSecond: 5 }

describe('parseReport', () => {
  it('takes an evaluation apart from its reference', () => {
    const text = JSON.stringify(
      { ...own, reference: { ...own, checkpoint: 'b' }, retention: {} },
      undefined,
      2,
    )
    const report = parseReport(text, 'eval.json')
    expect(report.kind === 'eval' && report.evaluations.map(({ checkpoint }) => checkpoint)).toEqual([
      'a',
      'b',
    ])
  })

  it.each([1, 3])('takes a log of %s lines', (count) => {
    const report = parseReport(`${JSON.stringify(step)}\n`.repeat(count), 'log.jsonl')
    expect(report.kind === 'train' && report.steps).toHaveLength(count)
  })

  it.each(['', '{', '{}', '[1]', `${JSON.stringify(step)}\n{"step":`])('refuses %j', (text) => {
    expect(() => parseReport(text, 'x')).toThrow(/This is no report/)
  })
})
