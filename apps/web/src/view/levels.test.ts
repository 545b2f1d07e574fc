import { describe, expect, it } from 'vitest'
import type { TensorRow } from '../worker/api.js'
import { levelsOf } from './levels.js'
import { search } from './search.js'

const row = (name: string, group: string, place: Partial<TensorRow> = {}): TensorRow => ({
  name,
  group,
  dtype: 'BF16',
  shape: [2, 3],
  bytes: 12,
  ...place,
})
const rows = [
  row('embed', 'embedding'),
  row('layers.0.moe.0.w1', 'expert', { layer: 0, expert: 0 }),
  row('layers.0.moe.0.w2', 'expert', { layer: 0, expert: 0 }),
  row('layers.0.moe.1.w1', 'expert', { layer: 0, expert: 1 }),
  row('layers.1.mlp.up', 'ffn', { layer: 1 }),
  row('head', 'head'),
]

describe('levelsOf', () => {
  it('draws the head on top, then the layers from the last to the first, then the embedding', () => {
    expect(levelsOf(rows).map(({ label, blocks }) => [label, blocks.map((block) => block.label)])).toEqual([
      ['', ['head']],
      ['1', ['ffn']],
      ['0', ['expert 0', 'expert 1']],
      ['', ['embedding']],
    ])
  })

  it('counts a block, and names what its tensors have in common', () => {
    const { parameters, prefix } = levelsOf(rows)[2]!.blocks[0]!
    expect([parameters, prefix]).toEqual([12, 'layers.0.moe.0.w'])
  })
})

describe('search', () => {
  it('finds tensors that have every word in name, dtype or shape', () => {
    expect(search(rows, 'layers W1').map(({ name }) => name)).toEqual([rows[1]!.name, rows[3]!.name])
    expect(search(rows, '2x3 bf16')).toHaveLength(6)
    expect(search(rows, ' ')).toBe(rows)
    expect(search(rows, 'w3')).toEqual([])
  })
})
