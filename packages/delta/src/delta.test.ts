import {
  applyDelta,
  createDelta,
  deltaProblems,
  readDeltaStep,
  readVocabularies,
  scaleDelta,
} from '@polygraft/delta'
import { type Checkpoint, pipe, type Tensor } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { checkpointOf, tinyModel, valuesOf } from '../test/memory.js'

const EMBEDDING = 'model.embed_tokens.weight'
const HEAD = 'lm_head.weight'
const tokenizer = (...tokens: string[]) => ({
  'tokenizer.json': JSON.stringify({
    model: { vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) },
  }),
})
const minus = (a: readonly number[], b: readonly number[]) => a.map((x, i) => x - b[i]!)
const plus = (a: readonly number[], b: readonly number[]) => a.map((x, i) => x + b[i]!)
const rows = (tensor: Tensor | undefined, from: number, to: number) =>
  valuesOf(tensor).slice(4 * from, 4 * to)
const codes = (base: Checkpoint, post: Checkpoint) => deltaProblems({ base, post }).map(({ code }) => code)

describe('createDelta', () => {
  it('is post - base in F32, under the same names', () => {
    const [base, post] = [tinyModel(1), tinyModel(2)]
    const delta = createDelta({ base, post })
    expect([...delta.tensors.keys()]).toEqual([...post.tensors.keys()])
    for (const [name, tensor] of delta.tensors) {
      expect(tensor.dtype).toBe('F32')
      expect(valuesOf(tensor)).toEqual(
        minus(valuesOf(post.tensors.get(name)), valuesOf(base.tensors.get(name))),
      )
    }
  })

  it('carries the config and files of post, and names both sources', () => {
    const [base, post] = [tinyModel(1), tinyModel(2, { eos_token_id: 5 }, tokenizer('a'))]
    const delta = createDelta({ base, post })
    expect(delta.config).toEqual(post.config)
    expect(delta.files).toBe(post.files)
    const ids = { base: [...base.sources.keys()][0], post: [...post.sources.keys()][0] }
    expect(delta.provenance.recipe).toEqual([{ op: 'delta', inputs: ids, rows: 'id', copiedRows: [] }])
  })

  it('counts tied embeddings once', () => {
    const tied = { tie_word_embeddings: true }
    const delta = createDelta({ base: tinyModel(1, tied), post: tinyModel(2, tied) })
    expect(delta.tensors.has(HEAD)).toBe(false)
  })

  it("takes a tied base's embedding for its head when post is untied", () => {
    const [base, post] = [tinyModel(1, { tie_word_embeddings: true }), tinyModel(2)]
    const delta = createDelta({ base, post })
    expect(valuesOf(delta.tensors.get(HEAD))).toEqual(
      minus(valuesOf(post.tensors.get(HEAD)), valuesOf(base.tensors.get(EMBEDDING))),
    )
    expect(delta.config.tie_word_embeddings).not.toBe(true)
  })

  it("and a tied post's embedding when base is untied", () => {
    const [base, post] = [tinyModel(1), tinyModel(2, { tie_word_embeddings: true })]
    const delta = createDelta({ base, post })
    expect(valuesOf(delta.tensors.get(HEAD))).toEqual(
      minus(valuesOf(post.tensors.get(EMBEDDING)), valuesOf(base.tensors.get(HEAD))),
    )
    expect(delta.config.tie_word_embeddings).toBe(false)
  })

  it('skips buffers, and a head that tying ignores, and says so', () => {
    const config = tinyModel(1).config
    const withBuffer = (seed: number) => {
      const model = tinyModel(seed, { tie_word_embeddings: true })
      const stored = [...model.tensors].map(
        ([name, t]) => [name, { shape: t.shape, values: valuesOf(t) }] as const,
      )
      return checkpointOf(
        {
          ...Object.fromEntries(stored),
          'model.layers.0.self_attn.rotary_emb.inv_freq': { shape: [1], values: [seed] },
          [HEAD]: { shape: [6, 4], values: new Array(24).fill(seed) },
        },
        { ...config, tie_word_embeddings: true },
      )
    }
    const delta = createDelta({ base: withBuffer(1), post: withBuffer(2) })
    expect([...delta.tensors.keys()].filter((name) => /inv_freq|head/.test(name))).toEqual([])
    expect(delta.provenance.skipped.map(({ tensor }) => tensor)).toEqual([
      'model.layers.0.self_attn.rotary_emb.inv_freq',
      HEAD,
    ])
  })

  it("aligns rows by token, and copies post's where base has none", async () => {
    const base = tinyModel(1, { vocab_size: 3 }, tokenizer('a', 'b', 'c'))
    const post = tinyModel(2, { vocab_size: 6 }, tokenizer('a', 'b', 'c', '<eot>'))
    const delta = createDelta({ base, post, vocabularies: await readVocabularies({ base, post }) })
    for (const name of [EMBEDDING, HEAD]) {
      const [d, b, p] = [delta, base, post].map(({ tensors }) => tensors.get(name))
      expect(d!.shape).toEqual([6, 4])
      expect(rows(d, 0, 3)).toEqual(minus(rows(p, 0, 3), rows(b, 0, 3)))
      expect(rows(d, 3, 6)).toEqual(rows(p, 3, 6))
    }
    expect(readDeltaStep(delta).copiedRows.flat()).toEqual([3, 1, 4, 2])
  })

  it('works on families it knows nothing of, by name and shape', () => {
    const base = checkpointOf({ w: { shape: [2], values: [1, 2] } }, { model_type: 'new' })
    const post = checkpointOf({ w: { shape: [2], values: [3, 5] } })
    expect(valuesOf(createDelta({ base, post }).tensors.get('w'))).toEqual([2, 3])
  })
})

describe('deltaProblems', () => {
  it('lists every mismatch together', () => {
    const [base, post] = [tinyModel(1, { rms_norm_eps: 1e-5 }), tinyModel(2, { rms_norm_eps: 1e-6 })]
    const tensors = new Map(post.tensors)
    tensors.delete('model.norm.weight')
    tensors.set('extra', tensors.get(EMBEDDING)!)
    const name = 'model.layers.0.mlp.up_proj.weight'
    tensors.set(name, { ...tensors.get(name)!, shape: [4, 3], dtype: 'I8' })
    const problems = deltaProblems({ base, post: { ...post, tensors } })
    expect(problems.map(({ code, tensor }) => [code, tensor])).toEqual([
      ['config-mismatch', undefined],
      ['shape-mismatch', name],
      ['not-float', name],
      ['missing-tensor', 'extra'],
      ['missing-tensor', 'model.norm.weight'],
    ])
    expect(() => createDelta({ base, post: { ...post, tensors } })).toThrow('extra')
  })

  it('lets differing configs pass when forced', () => {
    const [base, post] = [tinyModel(1), tinyModel(2, { rope_theta: 5 })]
    expect(codes(base, post)).toEqual(['config-mismatch'])
    expect(deltaProblems({ base, post, force: true })).toEqual([])
  })

  it('does not guess how rows of unequal number go together', () => {
    expect(codes(tinyModel(1), tinyModel(2, { vocab_size: 7 }))).toEqual(['vocabulary-unknown'])
  })
})

describe('applyDelta', () => {
  it('adds it with its factor; base + delta is post', () => {
    const [base, post, other] = [tinyModel(1), tinyModel(2), tinyModel(3)]
    const delta = createDelta({ base, post })
    const applied = pipe(other, applyDelta({ delta, lambda: 0.5 }))
    for (const [name, tensor] of applied.tensors) {
      const half = valuesOf(delta.tensors.get(name)).map((x) => x / 2)
      expect(valuesOf(tensor)).toEqual(plus(valuesOf(other.tensors.get(name)), half))
      expect(valuesOf(pipe(base, applyDelta({ delta })).tensors.get(name))).toEqual(
        valuesOf(post.tensors.get(name)),
      )
    }
    expect(applied.provenance.recipe.map(({ op, lambda }) => [op, lambda])).toEqual([['apply', 0.5]])
  })

  it('leaves every tensor untouched at lambda 0 (property 5)', () => {
    const [base, post, other] = [tinyModel(1), tinyModel(2), tinyModel(3)]
    const applied = pipe(other, applyDelta({ delta: createDelta({ base, post }), lambda: 0 }))
    for (const [name, tensor] of applied.tensors) expect(tensor).toBe(other.tensors.get(name))
  })

  it('unties a tied target where the delta has a head', () => {
    const tied = tinyModel(3, { tie_word_embeddings: true })
    const delta = createDelta({ base: tinyModel(1), post: tinyModel(2) })
    const { tensors, config } = pipe(tied, applyDelta({ delta }))
    expect(config.tie_word_embeddings).toBe(false)
    expect(valuesOf(tensors.get(HEAD))).toEqual(
      plus(valuesOf(tied.tensors.get(EMBEDDING)), valuesOf(delta.tensors.get(HEAD))),
    )
  })

  it('replaces rows that the delta copied, and scaling leaves them alone', async () => {
    const base = tinyModel(1, {}, tokenizer('a', 'b', 'c'))
    const post = tinyModel(2, {}, tokenizer('a', 'b', 'c', '<eot>'))
    const delta = createDelta({ base, post, vocabularies: await readVocabularies({ base, post }) })
    const double = pipe(delta, scaleDelta(2))
    const target = tinyModel(3)
    const result = pipe(target, applyDelta({ delta: double })).tensors.get(EMBEDDING)
    const [d, p, t] = [delta, post, target].map(({ tensors }) => tensors.get(EMBEDDING))
    expect(rows(result, 3, 6)).toEqual(rows(p, 3, 6))
    expect(rows(result, 0, 3)).toEqual(
      plus(
        rows(t, 0, 3),
        rows(d, 0, 3).map((x) => 2 * x),
      ),
    )
    expect(double.provenance.recipe.map(({ op }) => op)).toEqual(['delta', 'scale'])
  })

  it('refuses what does not fit, all of it, and what is no delta', () => {
    const delta = createDelta({ base: tinyModel(1), post: tinyModel(2) })
    const target = tinyModel(3, { vocab_size: 7, intermediate_size: 5 })
    const apply = (options: Parameters<typeof applyDelta>[0]) => () => applyDelta(options)(target)
    expect(apply({ delta })).toThrow(/embed_tokens[\s\S]*align[\s\S]*gate_proj[\s\S]*lm_head/)
    expect(apply({ delta: tinyModel(2, target.config) })).toThrow('not-a-delta')
    expect(apply({ delta, lambda: Number.NaN })).toThrow('bad-lambda')
    expect(() => scaleDelta(Number.POSITIVE_INFINITY)(delta)).toThrow('bad-lambda')
  })
})
