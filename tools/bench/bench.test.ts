import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { measureMoments } from '@polygraft/engine'
import { graftProblems } from '@polygraft/graft'
import { mergeSources } from '@polygraft/tensor'
import { openPath } from '@polygraft/tensor-io/node'
import { expect, it } from 'vitest'
import { writeData } from './data.js'
import { spreadOf } from './measure.js'
import { benchModels, modelBytes } from './model.js'

it.each([1, 4, 8])('makes models of the wanted size together, E = %i', (experts) => {
  for (const totalBytes of [3 * 2 ** 20, 3 * 2 ** 30]) {
    const { dense, cpt } = benchModels(totalBytes, experts)
    const bytes = 2 * modelBytes(dense) + modelBytes(cpt)
    expect(bytes).toBeLessThanOrEqual(totalBytes)
    expect(bytes).toBeGreaterThan(0.99 * totalBytes)
  }
})

it.each([1, 4])('makes data that can be grafted, with small deltas, E = %i', async (experts) => {
  const dir = mkdtempSync(join(tmpdir(), 'bench-'))
  try {
    writeData(dir, benchModels(3 * 2 ** 20, experts))
    const [base, post, cpt] = await Promise.all(
      ['base', 'instruct', 'cpt'].map((role) => openPath(join(dir, role))),
    )
    expect(graftProblems(cpt!, { base: base!, post: post! })).toEqual([])
    const name = 'model.embed_tokens.weight'
    const [before, after] = [base!, post!].map(({ tensors }) => tensors.get(name)!)
    const pairs = new Map([[name, [before!, after!] as const]])
    const moments = (await measureMoments(pairs, mergeSources(base!, post!))).get(name)!
    expect(moments.nonFinite).toBe(0)
    expect(moments.changed / moments.count).toBeCloseTo(0.4, 1)
    expect(Math.sqrt(moments.sumDelta2 / moments.sumA2)).toBeLessThan(0.02)
  } finally {
    rmSync(dir, { recursive: true })
  }
})

it('takes the median', () => {
  expect(spreadOf([3, 1, 2])).toEqual({ median: 2, least: 1, most: 3 })
  expect(spreadOf([4, 1, 2, 3]).median).toBe(2.5)
})
