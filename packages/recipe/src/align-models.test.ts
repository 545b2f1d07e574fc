import { alignModels, type NamedModel, type TokenizerSetting } from '@polygraft/recipe'
import { ModelError } from '@polygraft/tensor'
import { readText } from '@polygraft/tensor-io'
import { describe, expect, it } from 'vitest'
import { rowOf, tinyModel } from '../test/models.js'

const EMBEDDING = 'model.embed_tokens.weight'
const HEAD = 'lm_head.weight'
const named = async (...lists: readonly (readonly string[] | undefined)[]): Promise<NamedModel[]> =>
  Promise.all(
    lists.map(async (tokens, i) => ({
      label: `model ${i}`,
      checkpoint: await tinyModel(i + 1, tokens ? { tokens } : { config: { vocab_size: 3 } }),
    })),
  )
const meanRow = async () => Float32Array.of(1, 2, 3, 4)
const union: TokenizerSetting = { source: 'union', tokens: new Map() }

/** Row `row` of the aligned models, and rows of the inputs that it may be made of. */
async function rows(models: NamedModel[], setting: TokenizerSetting | undefined, base?: number) {
  const aligned = await alignModels(models, base, setting, meanRow)
  return {
    ...aligned,
    out: (m: number, row: number, name = EMBEDDING) => rowOf(aligned.models[m]!, name, row),
    from: (m: number, row: number, name = EMBEDDING) => rowOf(models[m]!.checkpoint, name, row),
  }
}

describe('alignModels', () => {
  it('leaves models of one vocabulary alone', async () => {
    const models = await named(['a', 'b', 'c'], ['a', 'b', 'c'])
    const { models: aligned, vocabulary } = await alignModels(models, 0, undefined, meanRow)
    expect(aligned).toEqual(models.map(({ checkpoint }) => checkpoint))
    expect(vocabulary).toBeUndefined()
  })

  it('aligns by token to the base, without being asked, where vocabularies differ', async () => {
    const { out, from, vocabulary, warnings } = await rows(
      await named(['a', 'b', 'c'], ['b', 'a', '<x>', 'c']),
      undefined,
      0,
    )
    expect(vocabulary?.rows).toBe(3)
    expect(await out(1, 0)).toEqual(await from(1, 1))
    expect(await out(1, 1)).toEqual(await from(1, 0))
    expect(await out(1, 2)).toEqual(await from(1, 3))
    expect(await out(1, 2, HEAD)).toEqual(await from(1, 3, HEAD))
    expect(warnings).toMatchObject([{ code: 'vocabularies-differ' }])
  })

  it('unites vocabularies: ids of the base stay, tokens of others follow, missing rows come from whoever has them', async () => {
    const { out, from, vocabulary } = await rows(
      await named(['a', 'b'], ['a', 'c', '<x>'], ['<x>', 'c']),
      union,
      0,
    )
    expect([...vocabulary!.ids]).toEqual([
      ['a', 0],
      ['b', 1],
      ['c', 2],
      ['<x>', 3],
    ])
    expect(await out(1, 1)).toEqual(await from(0, 1)) // b is in the base alone
    expect(await out(2, 0)).toEqual(await from(0, 0)) // a is in base and model 1: the base's
    const [one, two] = [await from(1, 1), await from(2, 1)]
    const mean = one.map((x, i) => Math.fround(Math.fround(x + two[i]!) * 0.5))
    expect(await out(0, 2)).toEqual(mean) // c is not in the base: the mean
    const json = JSON.parse(await readText(vocabulary!.files.get('tokenizer.json')!))
    expect(json.model.vocab).toEqual({ a: 0, b: 1, c: 2 })
    expect(json.added_tokens).toMatchObject([{ id: 3, content: '<x>', special: true }])
  })

  it('takes merges of byte-pair tokenizers along', async () => {
    const bpe = (vocab: object, merges: readonly string[]) => ({
      files: {
        'tokenizer.json': JSON.stringify({ added_tokens: [], model: { type: 'BPE', vocab, merges } }),
      },
      config: { vocab_size: Object.keys(vocab).length },
    })
    const models = [
      { label: 'a', checkpoint: await tinyModel(1, bpe({ x: 0, y: 1, xy: 2 }, ['x y'])) },
      { label: 'b', checkpoint: await tinyModel(2, bpe({ y: 0, x: 1, yx: 2 }, ['y x'])) },
    ]
    const { vocabulary } = await alignModels(models, 0, union, meanRow)
    const { model } = JSON.parse(await readText(vocabulary!.files.get('tokenizer.json')!))
    expect(model).toEqual({ type: 'BPE', vocab: { x: 0, y: 1, xy: 2, yx: 3 }, merges: ['x y', 'y x'] })
  })

  it('gives single tokens the rows that are asked for', async () => {
    const tokens = new Map([
      ['b', { source: { kind: 'model', model: 0 }, force: true }],
      ['<x>', { source: { kind: 'token', model: 1, token: 'a' }, force: false }],
      ['<y>', { source: { kind: 'zero' }, force: false }],
      ['<z>', { source: { kind: 'token', model: 0, token: 1 }, force: true }],
    ] as const)
    const { out, from, vocabulary } = await rows(
      await named(['a', 'b'], ['b', 'a', '<x>']),
      { source: 'union', tokens },
      0,
    )
    expect([...vocabulary!.ids.keys()]).toEqual(['a', 'b', '<x>', '<y>', '<z>'])
    expect(await out(1, 1)).toEqual(await from(0, 1))
    expect(await out(0, 2)).toEqual(await from(1, 1))
    expect(await out(1, 2)).toEqual(await from(1, 2)) // it has the token, and is not forced
    expect(await out(0, 3)).toEqual([0, 0, 0, 0])
    expect(await out(1, 4)).toEqual(await from(0, 1))
  })

  it('pads with the mean row, and drops what lies past the tokenizer', async () => {
    const models = await named(['a', 'b', 'c'], ['a', 'b', 'c'])
    const { out, vocabulary } = await rows(
      models,
      { source: { model: 0 }, tokens: new Map(), padToMultipleOf: 2 },
      0,
    )
    expect(vocabulary?.rows).toBe(4)
    expect(await out(1, 3)).toEqual([1, 2, 3, 4])
  })

  it('keeps the rows of the base where it has no token', async () => {
    const wide = await tinyModel(1, { tokens: ['a', 'b'], config: { vocab_size: 4 } })
    const models = [{ label: 'base', checkpoint: wide }, ...(await named(['b', 'a'])).slice(0, 1)]
    const { out, from } = await rows(models, undefined, 0)
    expect(await out(1, 3)).toEqual(await from(0, 3))
    expect(await out(1, 0)).toEqual(await from(1, 1))
  })

  it('takes a model without a tokenizer to have that of the base, if it has as many rows', async () => {
    const { out, from } = await rows(await named(['a', 'b', 'c'], ['c', 'b', 'a'], undefined), undefined, 0)
    expect(await out(2, 0)).toEqual(await from(2, 0))
    const other = named(['a', 'b'], undefined)
    await expect(alignModels(await other, 0, undefined, meanRow)).rejects.toThrow(ModelError)
  })

  it('says which tokens have no row anywhere', async () => {
    const narrow = await tinyModel(1, { tokens: ['a', 'b', 'c'], config: { vocab_size: 2 } })
    const { warnings } = await alignModels([{ label: 'm', checkpoint: narrow }], undefined, union, meanRow)
    expect(warnings).toMatchObject([{ code: 'no-embedding' }])
  })

  it('has no union of tokenizers of two kinds', async () => {
    const models = await named(['a', 'b'], ['c', 'd'])
    const json = JSON.stringify({ added_tokens: [], model: { type: 'BPE', vocab: { q: 0 }, merges: [] } })
    const other = await tinyModel(3, { files: { 'tokenizer.json': json }, config: { vocab_size: 1 } })
    const mixed = [models[0]!, { label: 'other', checkpoint: other }]
    await expect(alignModels(mixed, 0, union, meanRow)).rejects.toMatchObject({ code: 'tokenizers-differ' })
  })
})
