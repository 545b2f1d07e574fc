import { allowedTensors, type Checkpoint, literal, matchesName, withoutAllowed } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'

const tensor = { dtype: 'F32', shape: [1], expr: literal(Float32Array.of(1)) } as const
const checkpoint: Checkpoint = {
  config: {},
  tensors: new Map(['score.weight', 'score.bias', 'model.norm.weight'].map((name) => [name, tensor])),
  files: new Map(),
  sources: new Map(),
  provenance: { recipe: [], skipped: [] },
}

describe('allow', () => {
  it.each([
    ['score', 'score.weight', true],
    ['score.*', 'score.weight', true],
    ['weight*score', 'score.weight', false],
    ['s*e.w*t', 'score.weight', true],
    ['*', 'score.weight', true],
    ['.bias', 'score.weight', false],
  ])('%s names %s: %s', (filter, name, expected) => {
    expect(matchesName(filter, name)).toBe(expected)
  })

  it('goes by the first rule that names a tensor', () => {
    const allow = [
      { tensors: '.bias', reason: 'zero' },
      { tensors: 'score', reason: 'ranking' },
    ]
    expect(allowedTensors(checkpoint, allow, 'base')).toEqual([
      { tensor: 'score.weight', reason: 'ranking (base)' },
      { tensor: 'score.bias', reason: 'zero (base)' },
    ])
    expect([...withoutAllowed(checkpoint, allow).tensors.keys()]).toEqual(['model.norm.weight'])
    expect(withoutAllowed(checkpoint, [])).toBe(checkpoint)
  })
})
