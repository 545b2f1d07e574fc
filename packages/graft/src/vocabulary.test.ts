import { createDelta, readVocabularies } from '@polygraft/delta'
import { type GraftOptions, graft, graftProblems } from '@polygraft/graft'
import { type Checkpoint, type JsonObject, pipe } from '@polygraft/tensor'
import { readText } from '@polygraft/tensor-io'
import { describe, expect, it } from 'vitest'
import { contentOf, denseModel, mixtureOf, perturb, store, tokenizer, valuesOf } from '../test/models.js'

const EMBEDDING = 'model.embed_tokens.weight'
const HEAD = 'lm_head.weight'
const WIDTH = 8
const row = (values: Float32Array, at: number) => [...values.slice(at * WIDTH, (at + 1) * WIDTH)]

interface Side {
  readonly tokens?: readonly (string | undefined)[]
  readonly rows: number
  readonly config?: JsonObject
  readonly files?: Readonly<Record<string, string>>
}

/** A dense model with that vocabulary. */
function modelOf(seed: number, { tokens, rows, config = {}, files = {} }: Side): Promise<Checkpoint> {
  const all = { ...(tokens ? tokenizer(...tokens) : {}), ...files }
  return denseModel('llama', seed, { config: { vocab_size: rows, ...config }, files: all })
}

/** cpt derives from its own dense model, so that its vocabulary can differ from base's. */
async function trio(sides: { base: Side; post: Side; cpt: Side }) {
  const [base, post] = [await modelOf(1, sides.base), await modelOf(2, sides.post)]
  // Trained elsewhere: nothing says what it was upcycled from.
  const cpt = { ...mixtureOf(await modelOf(3, sides.cpt), 2), provenance: { recipe: [], skipped: [] } }
  return { base, post, cpt, vocabularies: await readVocabularies({ base, post, cpt }) }
}

describe('vocabularies', () => {
  const abc = ['a', 'b', 'c']

  it('aligns by token: shared rows grafted, new ones copied, padding and own ones kept', async () => {
    const { base, post, cpt, vocabularies } = await trio({
      base: { tokens: abc, rows: 4 },
      post: { tokens: [...abc, '<eot>'], rows: 8 },
      cpt: { tokens: [...abc, '<eot>', 'γ'], rows: 6 },
    })
    const output = pipe(cpt, graft({ base, post, lambda: 0.5, vocabularies }))
    expect(output.config.vocab_size).toBe(6)
    const plain = pipe(
      cpt,
      graft({ base: await modelOf(1, { rows: 6 }), post: await modelOf(2, { rows: 6 }), lambda: 0.5 }),
    )
    for (const name of [EMBEDDING, HEAD]) {
      const all = [output, cpt, base, post, plain].map((each) => valuesOf(each, name))
      const [o, c, b, p] = (await Promise.all(all)) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ]
      expect(o).toHaveLength(6 * WIDTH)
      const half = row(c, 1).map((x, i) => x + 0.5 * (row(p, 1)[i]! - row(b, 1)[i]!))
      for (const [i, x] of row(o, 1).entries()) expect(x).toBeCloseTo(half[i]!, 1)
      expect(row(o, 3)).toEqual(row(p, 3))
      expect(row(o, 4)).toEqual(row(c, 4))
      expect(row(o, 5)).toEqual(row(c, 5))
    }
    expect(output.provenance.recipe.at(-1)).toMatchObject({ rows: 'token', tokenizer: 'cpt' })
  })

  it('is the plain graft where the three are equal, padding included (properties 2 and 3)', async () => {
    const side = { tokens: abc, rows: 6 }
    const { base, post, cpt, vocabularies } = await trio({ base: side, post: side, cpt: side })
    const output = pipe(cpt, graft({ base, post, vocabularies }))
    expect(output.tensors.get(EMBEDDING)!.expr).toMatchObject({ op: 'graft', cpt: { op: 'read' } })
    const frozen = pipe(mixtureOf(base, 2), graft({ base, post, vocabularies }))
    expect(await valuesOf(frozen, EMBEDDING)).toEqual(await valuesOf(post, EMBEDDING))
  })

  it('goes by id without tokenizers, and records it', async () => {
    const { base, post, cpt } = await trio({ base: { rows: 6 }, post: { rows: 6 }, cpt: { rows: 6 } })
    const output = pipe(cpt, graft({ base, post }))
    expect(output.provenance.recipe.at(-1)).toMatchObject({ rows: 'id' })
    const more = await modelOf(2, { rows: 7 })
    expect(graftProblems(cpt, { base, post: more }).map(({ code }) => code)).toEqual(['vocabulary-unknown'])
  })

  it('lists every colliding id', async () => {
    const { base, post, cpt, vocabularies } = await trio({
      base: { tokens: abc, rows: 4 },
      post: { tokens: ['a', 'x', 'y'], rows: 4 },
      cpt: { tokens: abc, rows: 4 },
    })
    const problems = graftProblems(cpt, { base, post, vocabularies })
    expect(problems.map(({ code, message }) => `${code} ${message}`)).toEqual([
      'vocabulary-collision Token id 1 means different tokens',
      'vocabulary-collision Token id 2 means different tokens',
      expect.stringContaining('tokenizer-cannot-merge'),
      expect.stringContaining('tokenizer-cannot-merge'),
    ])
  })

  it('a stored delta aligns alike', async () => {
    const { base, post, cpt, vocabularies } = await trio({
      base: { tokens: abc, rows: 4 },
      post: { tokens: [...abc, '<eot>'], rows: 5 },
      cpt: { tokens: [...abc], rows: 6 },
    })
    const delta = await store(createDelta({ base, post, vocabularies }))
    const stored = { delta, lambda: 0.5, vocabularies: await readVocabularies({ delta, cpt }) }
    const output = pipe(cpt, graft(stored))
    expect(await contentOf(output)).toEqual(
      await contentOf(pipe(cpt, graft({ base, post, lambda: 0.5, vocabularies }))),
    )
    // A row that the delta only has the difference of cannot be copied.
    const poorer = await modelOf(3, { tokens: ['a', 'b'], rows: 4 })
    const lost = graftProblems(poorer, {
      delta,
      vocabularies: await readVocabularies({ delta, cpt: poorer }),
    })
    expect(lost.map(({ code }) => code)).toEqual(['delta-row-missing'])
  })

  it('a stored delta copies its rows without tokenizers too', async () => {
    const { base, post, cpt, vocabularies } = await trio({
      base: { tokens: abc, rows: 6 },
      post: { tokens: [...abc, '<eot>'], rows: 6 },
      cpt: { tokens: abc, rows: 6 },
    })
    const delta = await store(createDelta({ base, post, vocabularies }))
    const output = await valuesOf(pipe(cpt, graft({ delta, lambda: 0.5 })), EMBEDDING)
    expect(row(output, 3)).toEqual(row(await valuesOf(post, EMBEDDING), 3))
  })
})

describe('tied embeddings', () => {
  const tied = { tie_word_embeddings: true }
  const cases: readonly [string, boolean, boolean, boolean][] = [
    ['all tied', true, true, true],
    ['only base', true, false, false],
    ['only post', false, true, false],
    ['only cpt', false, false, true],
    ['all but base', false, true, true],
    ['all but post', true, false, true],
    ['all but cpt', true, true, false],
    ['none', false, false, false],
  ]

  it.each(cases)('%s', async (_, baseTied, postTied, cptTied) => {
    const config = (isTied: boolean) => ({ rows: 6, ...(isTied ? { config: tied } : {}) })
    const { base, post, cpt } = await trio({
      base: config(baseTied),
      post: config(postTied),
      cpt: config(cptTied),
    })
    const output = await store(pipe(cpt, graft({ base, post, lambda: 0.5 })))
    const isTied = baseTied && postTied && cptTied
    expect(output.tensors.has(HEAD)).toBe(!isTied)
    expect(output.config.tie_word_embeddings === true).toBe(isTied)
    // A model without a head computes with its embedding.
    const headOf = (checkpoint: Checkpoint) => (checkpoint.tensors.has(HEAD) ? HEAD : EMBEDDING)
    for (const pick of [() => EMBEDDING, headOf]) {
      const all = [output, cpt, base, post].map((each) => valuesOf(each, pick(each)))
      const [o, c, b, p] = (await Promise.all(all)) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ]
      for (const [i, x] of o.entries()) expect(x).toBeCloseTo(c[i]! + 0.5 * (p[i]! - b[i]!), 1)
    }
  })

  it('counts a tied delta once, with a stray head left out and named', async () => {
    const { base, post, cpt } = await trio({
      base: { rows: 6, config: tied },
      post: { rows: 6, config: tied },
      cpt: { rows: 6, config: tied },
    })
    const stray = { ...post, tensors: new Map([...post.tensors, [HEAD, post.tensors.get(EMBEDDING)!]]) }
    const output = pipe(cpt, graft({ base, post: stray }))
    expect(output.tensors.has(HEAD)).toBe(false)
    expect(output.provenance.skipped).toMatchObject([{ tensor: HEAD }])
  })
})

describe('files and config', () => {
  const text = async (checkpoint: Checkpoint, name: string) => {
    const file = checkpoint.files.get(name)
    return file && readText(file)
  }
  const generation = (eos: number) => ({ 'generation_config.json': `{"eos_token_id":[${eos}]}` })

  it("are cpt's, but for post's tokenizer, chat template, generation config and special ids", async () => {
    const { base, post, cpt, vocabularies } = await trio({
      base: { tokens: ['a'], rows: 6 },
      post: {
        tokens: ['a', '<eot>'],
        rows: 6,
        config: { eos_token_id: 1, max_position_embeddings: 7 },
        files: { ...generation(1), 'chat_template.jinja': 'post', 'README.md': 'post' },
      },
      cpt: {
        tokens: ['a'],
        rows: 6,
        config: { eos_token_id: 0, bos_token_id: 0 },
        files: { ...generation(0), 'chat_template.json': '{}', LICENSE: 'cpt', 'README.md': 'cpt' },
      },
    })
    const output = pipe(cpt, graft({ base, post, vocabularies }))
    expect(output.config).toEqual({ ...cpt.config, eos_token_id: 1 })
    expect(await text(output, 'tokenizer.json')).toBe(await text(post, 'tokenizer.json'))
    expect(await text(output, 'generation_config.json')).toContain('[1]')
    expect(await text(output, 'chat_template.jinja')).toBe('post')
    expect(await text(output, 'chat_template.json')).toBeUndefined()
    expect([await text(output, 'LICENSE'), await text(output, 'README.md')]).toEqual(['cpt', 'cpt'])
  })

  it("carry post's chat template beside cpt's tokenizer", async () => {
    const chat_template = [
      { name: 'default', template: 'post' },
      { name: 'tools', template: 'with tools' },
      { name: '../../outside', template: 'a path is no name' },
    ]
    const { base, post, cpt, vocabularies } = await trio({
      base: { tokens: ['a'], rows: 6 },
      post: { tokens: ['a'], rows: 6, files: { 'tokenizer_config.json': JSON.stringify({ chat_template }) } },
      cpt: {
        tokens: ['a', 'γ'],
        rows: 6,
        files: { 'chat_template.jinja': 'cpt', 'tokenizer_config.json': '{}' },
      },
    })
    const output = pipe(cpt, graft({ base, post, vocabularies }))
    expect(await text(output, 'tokenizer.json')).toBe(await text(cpt, 'tokenizer.json'))
    expect(await text(output, 'tokenizer_config.json')).toBe('{}')
    expect(await text(output, 'chat_template.jinja')).toBe('post')
    expect(await text(output, 'additional_chat_templates/tools.jinja')).toBe('with tools')
    expect([...output.files.keys()].filter((name) => name.includes('outside'))).toEqual([])
  })

  it("keep cpt's tokenizer where post has none", async () => {
    const files = tokenizer('a')
    const { base, post, cpt } = await trio({ base: { rows: 6 }, post: { rows: 6 }, cpt: { rows: 6, files } })
    const options: GraftOptions = { base, post, vocabularies: await readVocabularies({ base, post, cpt }) }
    expect(await text(pipe(cpt, graft(options)), 'tokenizer.json')).toBe(files['tokenizer.json'])
  })
})

describe('a language that grew the vocabulary', () => {
  it('keeps the rows that training added, and grafts the rest', async () => {
    const tokens = Array.from({ length: 10 }, (_, i) => `t${i}`)
    const base = await modelOf(1, { tokens, rows: 10 })
    const post = await store(base, { edit: perturb(2, 0.5) })
    const grown = await modelOf(1, { tokens: [...tokens, 'γ', 'δ'], rows: 12 })
    const cpt = mixtureOf(grown, 2)
    const output = pipe(cpt, graft({ base, post, vocabularies: await readVocabularies({ base, post, cpt }) }))
    const [o, c, b, p] = await Promise.all([output, cpt, base, post].map((each) => valuesOf(each, EMBEDDING)))
    expect([...o!.slice(10 * WIDTH)]).toEqual([...c!.slice(10 * WIDTH)])
    // Rows 0 to 9 were drawn as base's were, so they are post's now.
    expect([...c!.slice(0, 10 * WIDTH)]).toEqual([...b!])
    expect([...o!.slice(0, 10 * WIDTH)]).toEqual([...p!])
  })
})
