import type { DiffLine } from '@polygraft/delta'
import { describe, expect, it } from 'vitest'
import { cellsOf } from './cells.js'
import { parseLanguages } from './parse-languages.js'

const line = (group: string, count: number, changedShare: number, layer?: number): DiffLine => ({
  name: `${group} ${count}`,
  group,
  ...(layer === undefined ? {} : { layer }),
  count,
  norm: 1,
  relativeNorm: 1,
  cosine: 1,
  changedShare,
  maxAbs: 1,
  nonFinite: 0,
})

describe('cellsOf', () => {
  it('takes the mean of a layer and group by elements', () => {
    const lines = [
      line('ffn', 300, 1, 0),
      line('ffn', 100, 0, 0),
      line('ffn', 5, 0.5, 1),
      line('head', 1, 0.25),
    ]
    expect(cellsOf(lines, 'changedShare')).toEqual([
      { layer: 0, group: 'ffn', value: 0.75 },
      { layer: 1, group: 'ffn', value: 0.5 },
      { layer: undefined, group: 'head', value: 0.25 },
    ])
  })
})

describe('parseLanguages', () => {
  it.each([
    ['el, hu,tr', ['el', 'hu', 'tr']],
    ['中文，Español', ['中文', 'Español']],
    [' , ', []],
  ])('%s', (list, names) => expect(parseLanguages(list)).toEqual(names))
})
