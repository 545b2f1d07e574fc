import {
  type AnyMergeOptions,
  linear,
  MERGE_METHODS,
  measureMerge,
  type ParameterRule,
} from '@polygraft/delta'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { measured, tinyModel, valuesOf } from '../test/memory.js'

const methods = Object.entries(MERGE_METHODS)
const defaults = (rules: Readonly<Record<string, ParameterRule>>) =>
  Object.fromEntries(Object.entries(rules).map(([name, rule]) => [name, rule.default ?? 0.3]))

/** Options with every parameter that the table names. */
function optionsOf(name: string, models: readonly Checkpoint[]): AnyMergeOptions {
  const { perModel, shared, models: counts } = MERGE_METHODS[name]!
  const own = defaults(perModel)
  if ('density' in own) own.density = 0.5
  return {
    models: models.slice(0, counts[1]).map((model) => ({ model, ...own })),
    ...defaults(shared),
  }
}

const run = (name: string, base: Checkpoint, models: readonly Checkpoint[]) => {
  const { op, targets } = MERGE_METHODS[name]!
  const options = optionsOf(name, models)
  return pipe(base, op({ ...options, measured: measured((m) => targets(base, { ...options, measured: m })) }))
}

describe.each(methods)('%s', (name, { base: needsBase, models: [least], perModel, shared, mergekit }) => {
  const [base, a, b] = [tinyModel(1), tinyModel(2), tinyModel(3)]

  it('runs on every tensor by what its table says, and records that', () => {
    const merged = run(name, base, [a, b])
    expect([...merged.tensors.keys()]).toEqual([...base.tensors.keys()])
    const [step] = merged.provenance.recipe
    const { op, inputs, ...parameters } = step as { op: string; inputs: object }
    expect(op).toBe(name)
    expect(Object.keys(inputs)[0]).toBe(needsBase === 'required' ? 'base' : 'target')
    const known = Object.keys(parameters)
    for (const parameter of Object.keys(shared)) expect(known).toContain(parameter)
    // Recorded as a list, one for each model: `densities`.
    for (const parameter of Object.keys(perModel))
      expect(known.join(' ')).toContain(parameter.replace(/y$/, 'ies'))
    for (const option of Object.keys(mergekit)) expect(Object.keys(shared)).toContain(option)
  })

  it('takes what other operations made, as if it had been stored', () => {
    const between = (one: Checkpoint, other: Checkpoint) =>
      pipe(one, linear({ models: [{ model: one }, { model: other }] }))
    const [x, y, z] = [between(base, a), between(a, b), between(b, base)]
    const merged = run(name, x, [y, z])
    const shown = valuesOf(merged.tensors.get('model.layers.0.mlp.up_proj.weight'))
    expect(shown.every(Number.isFinite)).toBe(true)
    expect([...merged.sources.keys()].sort()).toEqual(
      [base, a, b].flatMap(({ sources }) => [...sources.keys()]).sort(),
    )
  })

  it('refuses other families, other shapes and another number of models, together', () => {
    const { op } = MERGE_METHODS[name]!
    const wide = tinyModel(2, { intermediate_size: 5 })
    const qwen = tinyModel(2, { model_type: 'qwen3' })
    const wrong = [wide, qwen, ...Array.from({ length: 2 }, () => a)].slice(0, Math.max(2, least))
    expect(() =>
      pipe(base, op({ ...optionsOf(name, []), models: wrong.map((model) => ({ model })) })),
    ).toThrow(/intermediate_size[\s\S]*gate_proj[\s\S]*family-mismatch/)
    expect(() => pipe(base, op({ ...optionsOf(name, []), models: [] }))).toThrow('no-models')
  })
})

it('measureMerge goes in rounds until nothing is open, and refuses what measures nothing', async () => {
  const [base, a] = [tinyModel(1), tinyModel(2)]
  const { targets } = MERGE_METHODS.sce!
  const options = optionsOf('sce', [a, tinyModel(3)])
  options.models.forEach(() => {})
  let rounds = 0
  const found = await measureMerge(
    (m) => targets(base, { ...options, selectTopk: 0.5, measured: m }),
    async (open) => {
      rounds++
      return measured((m) =>
        m.thresholds.size + m.statistics.size > 0 ? targets(base, { ...options, measured: m }) : open,
      )
    },
  ).catch((error: unknown) => error)
  expect(rounds).toBeGreaterThan(0)
  expect(found).toBeDefined()
})
