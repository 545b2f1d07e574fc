import {
  type KarcherOptions,
  karcher,
  karcherTargets,
  type ModelStockOptions,
  type MultislerpOptions,
  modelStock,
  modelStockTargets,
  multislerp,
  multislerpTargets,
  type NuslerpOptions,
  nuslerp,
  nuslerpTargets,
  type SlerpOptions,
  slerp,
  slerpTargets,
} from '@polygraft/delta'
import { type Checkpoint, literalValues, pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { measured, vectorOf, wOf } from '../test/memory.js'

type Vector = readonly number[]
const dot = (a: Vector, b: Vector) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)
const norm = (a: Vector) => Math.sqrt(dot(a, a))
const combine = (c: Vector, vectors: readonly Vector[]) =>
  vectors[0]!.map((_, i) => vectors.reduce((sum, v, k) => sum + c[k]! * v[i]!, 0))

const run = {
  slerp: (base: Checkpoint, options: SlerpOptions) =>
    wOf(
      pipe(
        base,
        slerp({ ...options, measured: measured((m) => slerpTargets(base, { ...options, measured: m })) }),
      ),
    ),
  nuslerp: (base: Checkpoint, options: NuslerpOptions) =>
    wOf(
      pipe(
        base,
        nuslerp({ ...options, measured: measured((m) => nuslerpTargets(base, { ...options, measured: m })) }),
      ),
    ),
  multislerp: (base: Checkpoint, options: MultislerpOptions) =>
    wOf(
      pipe(
        base,
        multislerp({
          ...options,
          measured: measured((m) => multislerpTargets(base, { ...options, measured: m })),
        }),
      ),
    ),
  karcher: (base: Checkpoint, options: KarcherOptions) =>
    wOf(
      pipe(
        base,
        karcher({ ...options, measured: measured((m) => karcherTargets(base, { ...options, measured: m })) }),
      ),
    ),
  modelStock: (base: Checkpoint, options: ModelStockOptions) =>
    wOf(
      pipe(
        base,
        modelStock({
          ...options,
          measured: measured((m) => modelStockTargets(base, { ...options, measured: m })),
        }),
      ),
    ),
}

/** The definitions, in F64, of whole vectors. */
function plainSlerp(a: Vector, b: Vector, t: number, isCollinear: (cos: number) => boolean): Vector {
  const cos = dot(a, b) / norm(a) / norm(b)
  if (!(norm(a) > 0 && norm(b) > 0) || isCollinear(cos)) return combine([1 - t, t], [a, b])
  const omega = Math.acos(cos)
  return combine([Math.sin((1 - t) * omega), Math.sin(t * omega)], [a, b]).map((x) => x / Math.sin(omega))
}

function plainKarcher(vectors: readonly Vector[], weights: Vector): Vector {
  const units = vectors.map((v) => v.map((x) => x / norm(v)))
  const unit = (v: Vector) => v.map((x) => x / norm(v))
  let mean = unit(combine(weights, units))
  for (let round = 0; round < 10; round++) {
    const steps = units.map((u) => {
      const cos = Math.min(1, Math.max(-1, dot(u, mean)))
      const theta = Math.acos(cos)
      return u.map((x, i) => (theta < 1e-5 ? 0 : (theta / Math.sin(theta)) * (x - cos * mean[i]!)))
    })
    const step = combine(weights, steps)
    if (norm(step) < 1e-5) break
    mean = unit(combine([Math.cos(norm(step)), Math.sin(norm(step)) / norm(step)], [mean, step]))
  }
  return mean.map((x) => x * vectors.reduce((sum, v, i) => sum + weights[i]! * norm(v), 0))
}

const value = fc.double({ min: -4, max: 4, noNaN: true }).map((x) => Math.fround(Math.abs(x) < 1e-3 ? 0 : x))
const vectors = (least: number, most: number) =>
  fc
    .integer({ min: 2, max: 6 })
    .chain((n) =>
      fc.array(fc.array(value, { minLength: n, maxLength: n }), { minLength: least, maxLength: most }),
    )
const isBig = (v: Vector) => norm(v) > 0.1

function expectClose(received: Vector, expected: Vector, tolerance = 1e-5): void {
  const size = Math.max(1, ...expected.map(Math.abs))
  for (const [i, x] of received.entries())
    expect(Math.abs(x - expected[i]!), `${received} against ${expected}`).toBeLessThan(tolerance * size)
}

describe('slerp', () => {
  it('goes along the arc, or the line where there is none to speak of', () => {
    const property = fc.property(vectors(2, 2), fc.double({ min: 0, max: 1, noNaN: true }), ([a, b], t) => {
      const expected = plainSlerp(a!, b!, t, (cos) => Math.abs(cos) > 0.9995)
      expectClose(run.slerp(vectorOf(a!), { models: [{ model: vectorOf(b!) }], t }), expected)
    })
    fc.assert(property, { numRuns: 300 })
  })

  it.each([
    ['an angle of 90 degrees', [2, 0], [0, 2], 0.5, [Math.SQRT2, Math.SQRT2]],
    ['parallel vectors', [1, 2], [2, 4], 0.25, [1.25, 2.5]],
    ['opposed vectors', [1, 2], [-1, -2], 0.25, [0.5, 1]],
    ['just short of parallel', [1, 0], [1, 0.03], 0.5, [1, 0.015]],
    ['a base of 0', [0, 0], [2, 4], 0.25, [0.5, 1]],
    ['both 0', [0, 0], [0, 0], 0.25, [0, 0]],
    ['its ends', [1, 2], [2, -1], 1, [2, -1]],
  ])('of %s', (_, a, b, t, expected) => {
    expectClose(run.slerp(vectorOf(a), { models: [{ model: vectorOf(b) }], t }), expected, 1e-6)
  })

  it('takes t by tensor; shows NaN; records itself', () => {
    const model = vectorOf([Number.NaN, 1, 0])
    const merged = run.slerp(vectorOf([1, 0, 1]), {
      models: [{ model }],
      t: (name) => (name === 'w' ? 0.5 : 0),
    })
    expect(merged[0]).toBeNaN()
    // There is no angle, so it is a line.
    expectClose(merged.slice(1), [0.5, 0.5])
    const options = { models: [{ model }], t: 0.5 }
    const found = measured((m) => slerpTargets(model, { ...options, measured: m }))
    const [step] = pipe(model, slerp({ ...options, measured: found })).provenance.recipe
    expect(step).toMatchObject({ op: 'slerp', t: 0.5 })
  })

  it('refuses another number of models, a t that is no number, and to go unmeasured', () => {
    const models = [{ model: vectorOf([1, 2]) }, { model: vectorOf([1, 2, 3]) }]
    const base = vectorOf([1, 2])
    expect(() => pipe(base, slerp({ models, t: Number.NaN }))).toThrow(
      /bad-model-count[\s\S]*t is not finite[\s\S]*in model 2/,
    )
    expect(() => pipe(base, slerp({ models: models.slice(0, 1), t: 0.5 }))).toThrow('missing-measure')
  })
})

describe('nuslerp', () => {
  it('is slerp at the share of the second weight, of task vectors where asked', () => {
    const weights = fc.tuple(
      fc.double({ min: 0.1, max: 2, noNaN: true }),
      fc.double({ min: 0.1, max: 2, noNaN: true }),
    )
    const property = fc.property(vectors(3, 3), weights, fc.boolean(), ([base, a, b], [wa, wb], fromBase) => {
      const points = [a!, b!].map((v) => v.map((x, i) => (fromBase ? Math.fround(x - base![i]!) : x)))
      fc.pre(
        points.every(isBig) &&
          Math.abs(dot(points[0]!, points[1]!) / norm(points[0]!) / norm(points[1]!)) < 0.999,
      )
      const moved = plainSlerp(points[0]!, points[1]!, wb / (wa + wb), () => false)
      const expected = moved.map((x, i) => (fromBase ? x + base![i]! : x))
      const models = [
        { model: vectorOf(a!), weight: wa },
        { model: vectorOf(b!), weight: wb },
      ]
      expectClose(run.nuslerp(vectorOf(base!), { models, fromBase }), expected)
    })
    fc.assert(property, { numRuns: 100, maxSkipsPerRun: 2000 })
  })

  it('takes rows or columns each for itself', () => {
    const [a, b] = [
      [1, 0, 0, 3],
      [0, 1, 0, -3],
    ]
    const models = [a!, b!].map((values) => ({ model: vectorOf(values, [2, 2]) }))
    const base = vectorOf([0, 0, 0, 0], [2, 2])
    const half = Math.SQRT1_2
    expectClose(run.nuslerp(base, { models, grain: 'rows' }), [half, half, 0, 0])
    // Columns: (1, 0) with (0, 0), a line; (0, 3) with (1, -3).
    const column = plainSlerp([0, 3], [1, -3], 0.5, () => false)
    expectClose(run.nuslerp(base, { models, grain: 'columns' }), [0.5, column[0]!, 0, column[1]!])
  })

  it('keeps the coefficients of rows to the last place where the output is F64', () => {
    const shape = [2, 2]
    const [a, b] = [vectorOf([1, 2, 3, 4], shape), vectorOf([2, -1, 5, -2], shape)]
    const w = a.tensors.get('w')!
    const wide: Checkpoint = { ...a, tensors: new Map([['w', { ...w, dtype: 'F64' }]]) }
    const options: NuslerpOptions = { models: [a, b].map((model) => ({ model })), grain: 'rows' }
    const known = measured((m) => nuslerpTargets(wide, { ...options, measured: m }))
    const { expr } = pipe(wide, nuslerp({ ...options, measured: known })).tensors.get('w')!
    const parts = JSON.stringify(expr)
      .match(/"f32":"[^"]+"/g)!
      .map((text) => text.slice(7, -1))
    // The first three literals sum to the factors of a's rows: both are sin(Omega / 2) / sin Omega.
    const sum = (row: number) =>
      parts.slice(0, 3).reduce((total, f32) => total + literalValues({ op: 'literal', f32 })[row]!, 0)
    for (const [row, cos] of [0, 7 / (5 * Math.sqrt(29))].entries()) {
      const omega = Math.acos(cos)
      expect(Math.abs(sum(row) - Math.sin(omega / 2) / Math.sin(omega))).toBeLessThan(4e-16)
    }
  })

  it('refuses weights that sum to zero, and one model', () => {
    const model = vectorOf([1, 2])
    const merge =
      (...weights: number[]) =>
      () =>
        pipe(model, nuslerp({ models: weights.map((weight) => ({ model, weight })) }))
    expect(merge(1, -1)).toThrow('zero-weights')
    expect(merge(1)).toThrow(/bad-model-count[\s\S]*2/)
  })
})

describe('multislerp', () => {
  it('is the direction of the mean unit vector, at the mean norm', () => {
    const property = fc.property(
      vectors(2, 5),
      fc.array(fc.double({ min: 0.1, max: 2, noNaN: true }), { minLength: 5, maxLength: 5 }),
      (all, given) => {
        fc.pre(all.every(isBig))
        const total = all.reduce((sum, _, i) => sum + given[i]!, 0)
        const weights = all.map((_, i) => given[i]! / total)
        const mean = combine(
          weights,
          all.map((v) => v.map((x) => x / norm(v))),
        )
        fc.pre(norm(mean) > 0.05)
        const size = all.reduce((sum, v, i) => sum + weights[i]! * norm(v), 0)
        const models = all.map((values, i) => ({ model: vectorOf(values), weight: given[i]! }))
        expectClose(
          run.multislerp(vectorOf(all[0]!), { models }),
          mean.map((x) => (x / norm(mean)) * size),
        )
      },
    )
    fc.assert(property, { numRuns: 100, maxSkipsPerRun: 2000 })
  })

  it('is the model itself for one, a line for two that cancel, and an error for more', () => {
    const base = vectorOf([1, 1])
    const of = (...all: number[][]) => ({ models: all.map((values) => ({ model: vectorOf(values) })) })
    expect(run.multislerp(base, of([0.1, 3]))).toEqual([Math.fround(0.1), 3])
    expect(run.multislerp(base, { ...of([3, 2]), fromBase: true })).toEqual([3, 2])
    expectClose(run.multislerp(base, of([1, 2], [-3, -6])), [-1, -2])
    expect(run.multislerp(base, of([0, 0], [0, 0]))).toEqual([0, 0])
    const opposed = of([1, 0], [-1, 0], [0, 0])
    expect(() => run.multislerp(base, opposed)).toThrow(/no-direction[\s\S]*w/)
  })

  it('takes weights as they are where asked', () => {
    const models = [
      { model: vectorOf([2, 0]), weight: 1 },
      { model: vectorOf([0, 2]), weight: 1 },
    ]
    const half = Math.SQRT1_2
    expectClose(run.multislerp(models[0]!.model, { models }), [2 * half, 2 * half])
    expectClose(run.multislerp(models[0]!.model, { models, normalize: false }), [4 * half, 4 * half])
  })
})

describe('karcher', () => {
  it('is what the iteration on whole vectors gives', () => {
    const property = fc.property(vectors(2, 5), fc.boolean(), (all, weighted) => {
      fc.pre(all.every(isBig))
      const given = all.map((_, i) => (weighted ? i + 1 : 1))
      const weights = given.map((w) => w / given.reduce((a, b) => a + b))
      const mean = combine(
        weights,
        all.map((v) => v.map((x) => x / norm(v))),
      )
      // Near the far side of a point the iteration is chaotic, and rounding decides.
      fc.pre(norm(mean) > 0.3 && all.every((v) => dot(v, mean) / norm(v) / norm(mean) > -0.9))
      const models = all.map((values, i) => ({ model: vectorOf(values), weight: given[i]! }))
      expectClose(run.karcher(vectorOf(all[0]!), { models }), plainKarcher(all, weights), 1e-4)
    })
    fc.assert(property, { numRuns: 100, maxSkipsPerRun: 2000 })
  })

  it('halves the arc between two, and stays with equal ones', () => {
    const models = [
      [3, 0],
      [0, 1],
    ].map((values) => ({ model: vectorOf(values) }))
    expectClose(run.karcher(vectorOf([0, 0]), { models }), [2 * Math.SQRT1_2, 2 * Math.SQRT1_2])
    const equal = [vectorOf([1, 2]), vectorOf([1, 2]), vectorOf([1, 2])].map((model) => ({ model }))
    expectClose(run.karcher(vectorOf([0, 0]), { models: equal }), [1, 2])
  })

  it('passes over what has no direction or no shortest way; one model is itself', () => {
    const of = (...all: number[][]) => ({ models: all.map((values) => ({ model: vectorOf(values) })) })
    const base = vectorOf([0, 0])
    expect(run.karcher(base, of([0.1, 0.2]))).toEqual([0.1, 0.2].map(Math.fround))
    expect(run.karcher(base, of([0, 0], [0, 0]))).toEqual([0, 0])
    expectClose(run.karcher(base, of([0, 0], [3, 4])), [1.5, 2])
    expect(run.karcher(base, of([1, 2], [-1, -2])).every(Number.isFinite)).toBe(true)
  })

  it('refuses limits that are none', () => {
    const model = vectorOf([1, 2])
    const merge = () => pipe(model, karcher({ models: [{ model }], maxIterations: 0.5, tolerance: 0 }))
    expect(merge).toThrow(/bad-count[\s\S]*bad-tolerance/)
  })
})

describe('modelStock', () => {
  it('moves from the base towards the mean by the angle between the task vectors', () => {
    const property = fc.property(vectors(3, 6), ([base, ...others]) => {
      const taus = others.map((v) => v.map((x, i) => Math.fround(x - base![i]!)))
      fc.pre(taus.every(isBig))
      const cosines = taus.flatMap((a, i) => taus.slice(i + 1).map((b) => dot(a, b) / norm(a) / norm(b)))
      const cos = cosines.reduce((a, b) => a + b) / cosines.length
      fc.pre(Math.abs(1 + (others.length - 1) * cos) > 0.05)
      const t = (others.length * cos) / (1 + (others.length - 1) * cos)
      const expected = base!.map(
        (x, i) => x + (t * taus.reduce((sum, tau) => sum + tau[i]!, 0)) / taus.length,
      )
      const models = others.map((values) => ({ model: vectorOf(values) }))
      expectClose(run.modelStock(vectorOf(base!), { models }), expected)
    })
    fc.assert(property, { numRuns: 100, maxSkipsPerRun: 2000 })
  })

  it('is the base for task vectors at right angles, of 0 or opposed, and their mean for equal ones', () => {
    const base = vectorOf([1, 1])
    const of = (...all: number[][]) => ({ models: all.map((values) => ({ model: vectorOf(values) })) })
    expectClose(run.modelStock(base, of([2, 1], [1, 2])), [1, 1])
    expectClose(run.modelStock(base, of([1, 1], [1, 2])), [1, 1])
    expectClose(run.modelStock(base, of([2, 1], [0, 1])), [1, 1])
    expectClose(run.modelStock(base, of([3, 1], [3, 1])), [3, 1])
    expect(() => pipe(base, modelStock(of([2, 1])))).toThrow(/bad-model-count[\s\S]*2 or more/)
  })

  it('takes each row for itself where asked', () => {
    const models = [
      [1, 0, 1, 0],
      [1, 0, 0, 1],
    ].map((values) => ({ model: vectorOf(values, [2, 2]) }))
    const base = vectorOf([0, 0, 0, 0], [2, 2])
    expectClose(run.modelStock(base, { models, grain: 'rows' }), [1, 0, 0, 0])
  })
})
