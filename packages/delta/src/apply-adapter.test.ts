import {
  type AdapterOptions,
  adapterProblems,
  adapterWarnings,
  applyAdapter,
  doraTargets,
  readAdapter,
} from '@polygraft/delta'
import { type Checkpoint, type JsonObject, ModelError, pipe } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { checkpointOf, tinyModel, valuesOf } from '../test/memory.js'

const Q = 'model.layers.0.self_attn.q_proj' // [4, 4]
const DOWN = 'model.layers.0.mlp.down_proj' // [4, 3]
const EMBEDDING = 'model.embed_tokens' // [6, 4]
const HEAD = 'lm_head'
type Stored = Record<string, { shape: number[]; values: number[] }>

const count = (n: number, from: number) => Array.from({ length: n }, (_, i) => ((from + i * 5) % 7) - 3)
const matrix = (rows: number, columns: number, from = 0) => ({
  shape: [rows, columns],
  values: count(rows * columns, from),
})
/** A and B of rank 2. */
const pair = (module: string, out: number, width: number, rank = 2): Stored => ({
  [`base_model.model.${module}.lora_A.weight`]: matrix(rank, width, 1),
  [`base_model.model.${module}.lora_B.weight`]: matrix(out, rank, 4),
})
const adapterOf = (tensors: Stored, change: JsonObject = {}) => {
  const config = {
    peft_type: 'LORA',
    r: 2,
    lora_alpha: 4,
    target_modules: ['q_proj', 'down_proj'],
    ...change,
  }
  return readAdapter(checkpointOf(tensors, {}, { 'adapter_config.json': JSON.stringify(config) }))
}
const apply = async (
  target: Checkpoint,
  tensors: Stored,
  change: JsonObject = {},
  more: Partial<AdapterOptions> = {},
) => pipe(target, applyAdapter({ adapter: await adapterOf(tensors, change), ...more }))
const codes = (target: Checkpoint, options: AdapterOptions) =>
  adapterProblems(target, options).map(({ code, tensor }) => [code, tensor])
const values = ({ tensors }: Checkpoint, name: string) => valuesOf(tensors.get(name))

/** W + s B A by hand. */
function sum(
  target: Checkpoint,
  name: string,
  [out, width]: readonly [number, number],
  s: number,
  rank = 2,
): number[] {
  const [a, b] = [count(rank * width, 1), count(out * rank, 4)]
  return values(target, `${name}.weight`).map((w, at) => {
    const [o, i] = [Math.floor(at / width), at % width]
    let product = 0
    for (let k = 0; k < rank; k++) product += b[o * rank + k]! * a[k * width + i]!
    return w + s * product
  })
}

describe('applyAdapter', () => {
  const target = tinyModel(1)
  const both = { ...pair(Q, 4, 4), ...pair(DOWN, 4, 3) }

  it('adds scale * alpha / rank * B A to each module, and leaves all else', async () => {
    const merged = await apply(target, both, {}, { scale: 0.5 })
    expect(values(merged, `${Q}.weight`)).toEqual(sum(target, Q, [4, 4], 1))
    expect(values(merged, `${DOWN}.weight`)).toEqual(sum(target, DOWN, [4, 3], 1))
    for (const [name, tensor] of target.tensors)
      if (!name.startsWith(Q) && !name.startsWith(DOWN)) expect(merged.tensors.get(name)).toBe(tensor)
    expect([...merged.tensors.keys()]).toEqual([...target.tensors.keys()])
    expect(merged.provenance.recipe.map(({ op, scale }) => [op, scale])).toEqual([['lora', 0.5]])
    expect(merged.sources.size).toBe(2)
    const none = await apply(target, both, {}, { scale: 0 })
    for (const [name, tensor] of target.tensors) expect(none.tensors.get(name)).toEqual(tensor)
  })

  it('takes rank and alpha by pattern, and rsLoRA', async () => {
    const tensors = { ...pair(Q, 4, 4, 1), ...pair(DOWN, 4, 3) }
    const merged = await apply(target, tensors, { rank_pattern: { q_proj: 1 }, alpha_pattern: { q_proj: 3 } })
    expect(values(merged, `${Q}.weight`)).toEqual(sum(target, Q, [4, 4], 3, 1))
    expect(values(merged, `${DOWN}.weight`)).toEqual(sum(target, DOWN, [4, 3], 2))
    const stabilised = await apply(
      target,
      { ...pair(Q, 4, 4, 4) },
      { r: 4, use_rslora: true, target_modules: '.*q_proj' },
    )
    expect(values(stabilised, `${Q}.weight`)).toEqual(sum(target, Q, [4, 4], 2, 4))
  })

  it('transposes where weights are stored as [in, out], in families that may', async () => {
    const gpt = checkpointOf({ 'h.0.c_attn.weight': matrix(3, 5) }, { model_type: 'gpt2' })
    const change = { fan_in_fan_out: true, target_modules: ['c_attn'] }
    const merged = await apply(gpt, pair('h.0.c_attn', 5, 3), change)
    const flat = checkpointOf({ 'h.0.c_attn.weight': { shape: [5, 3], values: new Array(15).fill(0) } })
    const product = sum(flat, 'h.0.c_attn', [5, 3], 2)
    const expected = values(gpt, 'h.0.c_attn.weight').map(
      (w, at) => w + product[(at % 5) * 3 + Math.floor(at / 5)]!,
    )
    expect(values(merged, 'h.0.c_attn.weight')).toEqual(expected)
    const llama = await apply(target, pair(DOWN, 4, 3), { fan_in_fan_out: true })
    expect(values(llama, `${DOWN}.weight`)).toEqual(sum(target, DOWN, [4, 3], 2))
    const adapter = await adapterOf(pair('h.0.c_attn', 5, 3), { target_modules: ['c_attn'] })
    expect(adapterProblems(gpt, { adapter })[0]!.next).toMatch('fan_in_fan_out')
  })

  it('adapts an embedding, on the weight that the adapter brings', async () => {
    const name = `base_model.model.${EMBEDDING}`
    const tensors = {
      [`${name}.base_layer.weight`]: matrix(6, 4, 2),
      [`${name}.lora_embedding_A`]: matrix(2, 6, 1),
      [`${name}.lora_embedding_B`]: matrix(4, 2, 4),
    }
    const merged = await apply(target, tensors, { target_modules: ['embed_tokens'] })
    const flat = checkpointOf({ 'x.weight': { shape: [4, 6], values: new Array(24).fill(0) } })
    const product = sum(flat, 'x', [4, 6], 2)
    expect(values(merged, `${EMBEDDING}.weight`)).toEqual(
      count(24, 2).map((w, at) => w + product[(at % 4) * 6 + Math.floor(at / 4)]!),
    )
  })

  it('adds to the weight of the head that the adapter brings, but not to one that it saves', async () => {
    const head = pair(HEAD, 6, 4)
    const under = { ...head, [`base_model.model.${HEAD}.base_layer.weight`]: matrix(6, 4, 2) }
    const merged = await apply(target, under, { target_modules: [HEAD] })
    const flat = checkpointOf({ 'x.weight': matrix(6, 4, 2) })
    expect(values(merged, `${HEAD}.weight`)).toEqual(sum(flat, 'x', [6, 4], 2))
    const both = { ...head, [`base_model.model.${HEAD}.weight`]: matrix(6, 4, 2) }
    const adapter = await adapterOf(both, { target_modules: [HEAD] })
    expect(codes(target, { adapter })).toEqual([['unknown-tensor', `${HEAD}.weight`]])
  })

  it('takes whole tensors: modules to save, biases, and adds the bias of B', async () => {
    const biased = tinyModel(1, { attention_bias: true })
    const tensors = {
      ...pair(Q, 4, 4),
      [`base_model.model.${HEAD}.weight`]: matrix(6, 4, 3),
      [`base_model.model.${Q}.base_layer.bias`]: { shape: [4], values: [1, 2, 3, 4] },
      [`base_model.model.${Q}.lora_B.bias`]: { shape: [4], values: [5, 6, 7, 8] },
    }
    const merged = await apply(biased, tensors, { modules_to_save: [HEAD], bias: 'all', lora_bias: true })
    expect(values(merged, `${HEAD}.weight`)).toEqual(count(24, 3))
    expect(values(merged, `${Q}.bias`)).toEqual([11, 14, 17, 20])
  })

  it('unties a target that gets a head of its own', async () => {
    const tied = tinyModel(2, { tie_word_embeddings: true })
    const tensors = { ...pair(Q, 4, 4), [`base_model.model.${HEAD}.weight`]: matrix(6, 4, 3) }
    const merged = await apply(tied, tensors, { modules_to_save: [HEAD] })
    expect(merged.config.tie_word_embeddings).toBe(false)
    expect(values(merged, `${HEAD}.weight`)).toEqual(count(24, 3))
    expect((await apply(tied, pair(Q, 4, 4))).config.tie_word_embeddings).toBe(true)
  })

  it('is DoRA: each row of the sum divided by its norm, times its magnitude', async () => {
    const tensors = {
      ...pair(Q, 4, 4),
      [`base_model.model.${Q}.lora_magnitude_vector`]: { shape: [4], values: [1, 2, 3, 4] },
    }
    const adapter = await adapterOf(tensors, { use_dora: true })
    const targets = doraTargets(target, { adapter })
    const expected = sum(target, Q, [4, 4], 2)
    expect([...targets].map(([name, tensor]) => [name, valuesOf(tensor)])).toEqual([
      [`${Q}.weight`, expected],
    ])
    const norms = Float32Array.from({ length: 4 }, (_, o) => Math.hypot(...expected.slice(4 * o, 4 * o + 4)))
    const options = { adapter, norms: new Map([[`${Q}.weight`, norms]]) }
    const merged = values(pipe(target, applyAdapter(options)), `${Q}.weight`)
    for (const [i, x] of merged.entries())
      expect(x).toBeCloseTo(((Math.floor(i / 4) + 1) * expected[i]!) / norms[Math.floor(i / 4)]!, 5)
    expect(() => pipe(target, applyAdapter({ adapter }))).toThrow('missing-measure')
    expect(doraTargets(target, { adapter: await adapterOf(both) }).size).toBe(0)
  })

  it('refuses all that does not fit, together', async () => {
    const tensors = {
      ...pair(Q, 4, 5),
      ...pair(DOWN, 4, 3, 1),
      ...pair('model.layers.9.self_attn.q_proj', 4, 4),
      ...pair('model.layers.0.mlp.up_proj', 3, 4),
      [`base_model.model.${HEAD}.weight`]: matrix(7, 4),
      'base_model.model.model.norm.weight': { shape: [4], values: [1, 1, 1, 1] },
      [`${Q}.lora_A.weight`]: matrix(2, 4),
      'base_model.model.x.lora_B.weight': matrix(4, 2),
    }
    const i8 = { ...target, tensors: new Map(target.tensors) }
    i8.tensors.set(`${DOWN}.weight`, { ...target.tensors.get(`${DOWN}.weight`)!, dtype: 'I8' })
    expect(codes(i8, { adapter: await adapterOf(tensors), scale: Number.NaN })).toEqual([
      ['bad-lambda', undefined],
      ['unknown-tensor', `${Q}.lora_A.weight`],
      ['missing-factor', 'base_model.model.x.lora_A.weight'],
      ['shape-mismatch', `${HEAD}.weight`],
      ['unknown-tensor', 'model.norm.weight'],
      ['shape-mismatch', `${Q}.weight`],
      ['not-float', `${DOWN}.weight`],
      ['rank-mismatch', `${DOWN}.weight`],
      ['unknown-module', 'model.layers.9.self_attn.q_proj.weight'],
      ['not-a-target', 'model.layers.0.mlp.up_proj.weight'],
    ])
    await expect(apply(target, tensors)).rejects.toThrow(ModelError)
  })

  it('refuses a tied head, a DoRA without magnitudes, a bias of none', async () => {
    const tied = tinyModel(1, { tie_word_embeddings: true })
    const head = await adapterOf(pair(HEAD, 6, 4), { target_modules: [HEAD] })
    expect(codes(tied, { adapter: head })).toEqual([['tied-head', `${HEAD}.weight`]])
    expect(
      codes(target, { adapter: await adapterOf(both, { use_dora: true }) }).map(([code]) => code),
    ).toEqual(['missing-factor', 'missing-factor'])
    const bias = {
      ...pair(Q, 4, 4),
      [`base_model.model.${Q}.lora_B.bias`]: { shape: [4], values: [1, 1, 1, 1] },
    }
    expect(codes(target, { adapter: await adapterOf(bias, { lora_bias: true }) })).toEqual([
      ['missing-tensor', `${Q}.bias`],
    ])
    expect(codes(target, { adapter: await adapterOf({}) }).map(([code]) => code)).toEqual(['unknown-tensor'])
  })

  it('warns of modules that are named and not there', async () => {
    const adapter = await adapterOf(pair(Q, 4, 4))
    expect(adapterWarnings(target, { adapter }).map(({ tensor }) => tensor)).toEqual([`${DOWN}.weight`])
  })
})

describe('readAdapter', () => {
  it('says when it is none', async () => {
    await expect(readAdapter(tinyModel(1))).rejects.toThrow('not-an-adapter')
    for (const text of ['{', '[]'])
      await expect(readAdapter(checkpointOf({}, {}, { 'adapter_config.json': text }))).rejects.toThrow(
        'bad-json',
      )
  })
})
