import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { formatSafetensors } from '@polygraft/tensor-io'
import { afterAll, beforeAll, expect, it } from 'vitest'

const bin = fileURLToPath(new URL('../bin/polygraft.js', import.meta.url))
const KILLS = 100

let dir = ''
let expected = new Map<string, string>()
/** How long an undisturbed run takes, so that kills fall everywhere in it. */
let usualMs = 0

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'polygraft-kill-'))
  for (const [i, name] of ['base', 'instruct', 'cpt'].entries()) await writeLlama(join(dir, name), i)
  const started = performance.now()
  expect(await graft('expected')).toBe(0)
  usualMs = performance.now() - started
  expected = await digestsOf('expected')
  expect([...expected.keys()].filter((file) => file.endsWith('.safetensors')).length).toBeGreaterThan(4)
})
afterAll(() => rm(dir, { recursive: true, force: true }))

it(`ends in the same bytes after ${KILLS} kills at random points`, async () => {
  let published = 0
  let resumed = 0
  for (let kill = 0; kill < KILLS; kill++) {
    const code = await graft('out', Math.random() * usualMs)
    const names = await readdir(dir)
    if (names.includes('.out.polygraft')) {
      const notes = await readdir(join(dir, '.out.polygraft', 'notes')).catch(() => [])
      if (notes.length > 0) resumed++
    }
    // Readers see the whole checkpoint or none.
    if (code !== 0 && !names.includes('out')) continue
    expect(await digestsOf('out')).toEqual(expected)
    await rm(join(dir, 'out'), { recursive: true })
    published++
  }
  await rm(join(dir, 'out'), { recursive: true, force: true })
  expect(await graft('out')).toBe(0)
  expect(await digestsOf('out')).toEqual(expected)
  expect((await readdir(dir)).sort()).toEqual(['base', 'cpt', 'expected', 'instruct', 'out'])
  // Otherwise the kills fell before or after the work, and the test shows nothing.
  expect(resumed).toBeGreaterThan(KILLS / 20)
  expect(published).toBeLessThan(KILLS)
}, 300_000)

/** Runs the graft, killing it after `killMs`. @returns the exit code, or null when it was killed. */
async function graft(out: string, killMs?: number): Promise<number | null> {
  const at = (name: string) => join(dir, name)
  const args = ['graft', at('cpt'), '-o', at(out), '--base', at('base'), '--post', at('instruct')]
  const child = spawn(process.execPath, [bin, ...args, '--max-shard-size', '2MB', '--threads', '2'], {
    stdio: 'ignore',
  })
  const timer = killMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killMs)
  const [code] = await once(child, 'exit')
  clearTimeout(timer)
  return code
}

async function digestsOf(out: string): Promise<Map<string, string>> {
  const files = (await readdir(join(dir, out))).sort()
  const digests = await Promise.all(
    files.map(async (file) =>
      createHash('sha256')
        .update(await readFile(join(dir, out, file)))
        .digest('hex'),
    ),
  )
  return new Map(files.map((file, i) => [file, digests[i]!]))
}

/** A Llama of about 34 MB with BF16 weights drawn from `seed`; all three share most of their bits. */
async function writeLlama(folder: string, seed: number): Promise<void> {
  const [hidden, intermediate, layers, vocabulary] = [256, 1024, 16, 512]
  const tensors: [string, { dtype: 'BF16'; shape: number[] }][] = [
    ['model.embed_tokens.weight', { dtype: 'BF16', shape: [vocabulary, hidden] }],
  ]
  for (let l = 0; l < layers; l++) {
    const add = (name: string, shape: number[]) =>
      tensors.push([`model.layers.${l}.${name}.weight`, { dtype: 'BF16', shape }])
    for (const name of ['input_layernorm', 'post_attention_layernorm']) add(name, [hidden])
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'o_proj']) add(`self_attn.${name}`, [hidden, hidden])
    for (const name of ['gate_proj', 'up_proj']) add(`mlp.${name}`, [intermediate, hidden])
    add('mlp.down_proj', [hidden, intermediate])
  }
  tensors.push(
    ['model.norm.weight', { dtype: 'BF16', shape: [hidden] }],
    ['lm_head.weight', { dtype: 'BF16', shape: [vocabulary, hidden] }],
  )
  const layout = formatSafetensors(tensors)
  const bytes = new Uint8Array(layout.size)
  bytes.set(layout.header)
  const values = new Uint16Array(bytes.buffer, layout.header.length)
  let state = 1
  for (let i = 0; i < values.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    values[i] = 0x3c00 + (state >>> 23) + (i % (seed + 2) === 0 ? seed : 0)
  }
  await mkdir(folder)
  await writeFile(join(folder, 'model.safetensors'), bytes)
  const config = {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: 4,
    num_key_value_heads: 4,
    vocab_size: vocabulary,
    tie_word_embeddings: false,
  }
  await writeFile(join(folder, 'config.json'), JSON.stringify(config))
}
