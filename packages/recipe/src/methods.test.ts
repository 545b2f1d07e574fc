import { MERGE_METHODS, measureMerge } from '@polygraft/delta'
import { evaluate, measureTargets } from '@polygraft/engine'
import { buildRecipe, dryMeasuring, engineMeasuring, parseRecipe } from '@polygraft/recipe'
import { type Checkpoint, mergeSources, pipe } from '@polygraft/tensor'
import { expect, it } from 'vitest'
import { tinyModel } from '../test/models.js'
import { METHODS } from './methods.js'

/** What a recipe says of a method, and the same as options of `@polygraft/delta`; models are b and c beside the base a. */
const CASES: readonly [
  name: string,
  yaml: string,
  models: 'b' | 'bc' | 'abc',
  options: object,
  perModel?: object,
][] = [
  ['linear', 'weight: 1', 'bc', {}, { weight: 1 }],
  ['slerp', 't: 0.3', 'b', { t: 0.3 }],
  ['nuslerp', 'weight: 1, nuslerp_flatten: false', 'bc', { fromBase: true, grain: 'rows' }, { weight: 1 }],
  ['multislerp', 'weight: 0.5', 'bc', { fromBase: true, normalize: true }, { weight: 0.5 }],
  ['karcher', 'max_iter: 7', 'bc', { maxIterations: 7 }],
  ['task_arithmetic', 'weight: 0.4', 'bc', {}, { weight: 0.4 }],
  ['ties', 'weight: 1, density: 0.5', 'bc', { tie: 'positive' }, { weight: 1, density: 0.5 }],
  ['dare_linear', 'weight: 1, density: 0.5', 'bc', { seed: 0 }, { weight: 1, density: 0.5 }],
  [
    'dare_linear',
    'weight: 1, density: 0.5, rescale: l1',
    'bc',
    { seed: 0, rescale: 'l1' },
    { weight: 1, density: 0.5 },
  ],
  [
    'dare_ties',
    'weight: 1, density: 0.5',
    'bc',
    { seed: 0, tie: 'positive', normalize: false },
    { weight: 1, density: 0.5 },
  ],
  ['breadcrumbs', 'weight: 1, density: 0.5', 'bc', {}, { weight: 1, density: 0.5 }],
  [
    'breadcrumbs_ties',
    'weight: 1, density: 0.5, gamma: 0.1',
    'bc',
    { tie: 'positive', normalize: false },
    { weight: 1, density: 0.5, gamma: 0.1 },
  ],
  [
    'della',
    'weight: 0.5, density: 0.5, epsilon: 0.2',
    'bc',
    { seed: 0, tie: 'positive' },
    { weight: 0.5, density: 0.5, epsilon: 0.2 },
  ],
  ['della_linear', 'weight: 1, density: 0.6', 'bc', { seed: 0 }, { weight: 1, density: 0.6, epsilon: 0.15 }],
  ['sce', 'select_topk: 0.5', 'bc', { selectTopk: 0.5, tie: 'positive', leastEnergy: 1e-6 }],
  ['model_stock', 'filter_wise: true', 'bc', { grain: 'rows' }],
  ['nearswap', 't: 0.1', 'b', { t: 0.1 }],
  ['arcee_fusion', '', 'b', {}],
  ['ram', 'epsilon: 0.5', 'bc', { epsilon: 0.5 }],
  ['ramplus_tl', 'epsilon: 0.5, r: 0.2', 'bc', { epsilon: 0.5, r: 0.2 }],
  ['dare_linear', 'weight: 1, density: 0.5, seed: 3', 'bc', { seed: 3 }, { weight: 1, density: 0.5 }],
  ['passthrough', 'scale: 0.5', 'b', {}, { scale: 0.5 }],
]

async function valuesOf({ tensors, sources }: Checkpoint): Promise<Record<string, readonly number[]>> {
  const entries = [...tensors].map(async ([name, tensor]) => {
    const bytes = await evaluate({ ...tensor, dtype: 'F32' }, sources)
    return [name, [...new Float32Array(bytes.slice().buffer)]] as const
  })
  return Object.fromEntries(await Promise.all(entries))
}

it.each(CASES)(
  '%s in a recipe is the method of @polygraft/delta',
  async (name, yaml, used, options, perModel) => {
    const { base: needsBase, op, targets } = MERGE_METHODS[name]!
    const all: Record<string, Checkpoint> = {
      a: await tinyModel(1),
      b: await tinyModel(2),
      c: await tinyModel(3),
    }
    const hasBase = needsBase !== 'none'
    const text = `
merge_method: ${name}
${hasBase ? 'base_model: a\n' : ''}parameters: { ${yaml} }
models: [${[...used].map((model) => `{ model: ${model} }`).join(', ')}]`
    const recipe = parseRecipe(text, 'r.yml')
    const environment = { open: async ({ path }: { path: string }) => all[path]! }
    const { checkpoint } = await buildRecipe(recipe, { ...environment, measuring: engineMeasuring() })

    const models = [...used].map((model) => ({ model: all[model]!, ...perModel }))
    const target = hasBase ? all.a! : models[0]!.model
    const measured = await measureMerge(
      (known) => targets(target, { ...options, models, measured: known }),
      (wanted) => measureTargets(wanted, mergeSources(...Object.values(all))),
    )
    const merged = pipe(target, op({ ...options, models, measured }))
    expect(await valuesOf(checkpoint)).toEqual(await valuesOf(merged))

    const dry = await buildRecipe(recipe, { ...environment, measuring: dryMeasuring })
    expect([...dry.checkpoint.tensors.keys()]).toEqual([...checkpoint.tensors.keys()])
  },
)

it('every method that recipes may name is there, and has a case', () => {
  const names = Object.keys(MERGE_METHODS).sort()
  expect(Object.keys(METHODS).sort()).toEqual(names)
  expect([...new Set(CASES.map(([name]) => name))].sort()).toEqual(names)
})

it('slerp of two vectors at an angle is on the arc', async () => {
  const all: Record<string, Checkpoint> = { a: await tinyModel(1), b: await tinyModel(2) }
  const text =
    'merge_method: slerp\nbase_model: a\nparameters: { t: 0.25 }\nmodels: [{ model: a }, { model: b }]'
  const { checkpoint } = await buildRecipe(parseRecipe(text, 'r.yml'), {
    open: async ({ path }) => all[path]!,
    measuring: engineMeasuring(),
  })
  const [merged, a, b] = await Promise.all([checkpoint, all.a!, all.b!].map(valuesOf))
  for (const name of Object.keys(merged!)) {
    const [x, y] = [a![name]!, b![name]!]
    const dot = (p: readonly number[], q: readonly number[]) =>
      p.reduce((sum, value, i) => sum + value * q[i]!, 0)
    const omega = Math.acos(dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y)))
    for (const [i, value] of merged![name]!.entries()) {
      const expected = (Math.sin(0.75 * omega) * x[i]! + Math.sin(0.25 * omega) * y[i]!) / Math.sin(omega)
      expect(value).toBeCloseTo(expected, 5)
    }
  }
})
