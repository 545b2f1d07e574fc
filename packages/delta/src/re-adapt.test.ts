import {
  applyDelta,
  createDelta,
  paramDelta,
  reAdapt,
  readVocabularies,
  truncateDelta,
} from '@polygraft/delta'
import { type Checkpoint, pipe } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { tinyModel, valuesOf, vectorOf, wOf } from '../test/memory.js'

const f32 = Math.fround
const number = fc.float({ min: -8, max: 8, noNaN: true })
const vectors = (count: number) =>
  fc.integer({ min: 1, max: 6 }).chain((length) =>
    fc.array(fc.array(number, { minLength: length, maxLength: length }), {
      minLength: count,
      maxLength: count,
    }),
  )

function expectEqual(one: Checkpoint, other: Checkpoint): void {
  expect([...one.tensors.keys()]).toEqual([...other.tensors.keys()])
  for (const [name, tensor] of one.tensors)
    expect(valuesOf(tensor)).toEqual(valuesOf(other.tensors.get(name)))
}

describe('paramDelta', () => {
  it('adds what post-training changed, and is exact where one of the two changed nothing', () => {
    const property = fc.property(vectors(3), fc.constantFrom(1, 0.5), ([cpt, base, post], lambda) => {
      const all = [cpt!, base!, post!].map((values) => vectorOf(values))
      const merged = wOf(pipe(all[0]!, paramDelta({ base: all[1]!, post: all[2]!, lambda })))
      const delta = post!.map((x, i) => f32(x - base![i]!))
      expect(merged).toEqual(
        cpt!.map((c, i) => {
          if (post![i] === base![i]) return c
          if (lambda === 1 && c === base![i]) return post![i]
          return f32(c + f32(lambda * delta[i]!))
        }),
      )
    })
    fc.assert(property)
  })

  it('gives post for the base itself, bit for bit, and names what it was given', () => {
    const [base, post] = [tinyModel(1), tinyModel(2)]
    const merged = pipe(base, paramDelta({ base, post }))
    expectEqual(merged, post)
    expect(merged.provenance.recipe).toMatchObject([
      { op: 'param_delta', lambda: 1, inputs: { models: [{}, {}] } },
    ])
  })

  it('refuses factors and shapes that do not fit, all together', () => {
    const [base, post] = [tinyModel(1), tinyModel(2, { intermediate_size: 5 })]
    expect(() => pipe(base, paramDelta({ base, post, lambda: Number.NaN }))).toThrow(
      /bad-lambda[\s\S]*intermediate_size[\s\S]*gate_proj[\s\S]*model 2/,
    )
  })
})

describe('reAdapt', () => {
  it('adds both deltas to the base, their weighted sum first', () => {
    const factor = fc.constantFrom(0, 0.25, 0.7, 1)
    fc.assert(
      fc.property(vectors(3), factor, factor, ([base, cpt, post], alpha, beta) => {
        const [b, c, i] = [base!, cpt!, post!].map((values) => vectorOf(values))
        const knowledge = createDelta({ base: b!, post: c! })
        const instruct = createDelta({ base: b!, post: i! })
        const merged = wOf(pipe(b!, reAdapt({ knowledge, instruct, alpha, beta })))
        for (const [k, x] of merged.entries()) {
          const d = f32(f32(alpha) * f32(cpt![k]! - base![k]!))
          const delta = f32(f32(beta) * f32(post![k]! - base![k]!))
          expect(x === f32(base![k]! + f32(d + delta))).toBe(true)
        }
      }),
    )
  })

  it('takes a delta that was cut to a low rank (LoRE)', () => {
    const [base, cpt, post] = [tinyModel(1), tinyModel(2), tinyModel(3)]
    const name = 'model.layers.0.mlp.gate_proj.weight'
    const factors = new Map([
      [
        name,
        { rank: 1, up: Float32Array.of(1, 2, 3), down: Float32Array.of(1, 0, -1, 2), squares: 0, energy: 0 },
      ],
    ])
    const knowledge = createDelta({ base, post: cpt })
    const instruct = truncateDelta(createDelta({ base, post }), factors)
    const merged = pipe(base, reAdapt({ knowledge, instruct, beta: 0.5 }))
    const [before, moved] = [base, cpt].map(({ tensors }) => valuesOf(tensors.get(name)))
    const product = [1, 2, 3].flatMap((u) => [1, 0, -1, 2].map((v) => u * v))
    expect(valuesOf(merged.tensors.get(name))).toEqual(
      before!.map((b, k) => b + (moved![k]! - b + 0.5 * product[k]!)),
    )
  })

  it('without knowledge is the delta applied', () => {
    const [base, cpt, post] = [tinyModel(1), tinyModel(2), tinyModel(3)]
    const [knowledge, instruct] = [cpt, post].map((model) => createDelta({ base, post: model }))
    const merged = pipe(base, reAdapt({ knowledge: knowledge!, instruct: instruct!, alpha: 0 }))
    expectEqual(merged, pipe(base, applyDelta({ delta: instruct! })))
  })

  it('refuses what is no delta, and rows that are no differences', async () => {
    const tokenizer = (...tokens: string[]) => ({
      'tokenizer.json': JSON.stringify({
        model: { vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) },
      }),
    })
    const base = tinyModel(1, {}, tokenizer('a', 'b'))
    const post = tinyModel(2, {}, tokenizer('a', 'b', 'c'))
    const vocabularies = await readVocabularies({ base, post })
    const plain = createDelta({ base, post })
    const aligned = createDelta({ base, post, vocabularies })
    expect(() => pipe(base, reAdapt({ knowledge: plain, instruct: aligned }))).toThrow(
      /copied-rows[\s\S]*4 rows/,
    )
    expect(() => pipe(base, reAdapt({ knowledge: post, instruct: plain }))).toThrow('not-a-delta')
  })
})
