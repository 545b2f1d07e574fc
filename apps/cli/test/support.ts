import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expectedTensors, familyOf } from '@polygraft/architectures'
import type { DType, JsonObject, Problem } from '@polygraft/tensor'
import { formatSafetensors } from '@polygraft/tensor-io'
import { openFolder } from '@polygraft/tensor-io/node'
import { afterAll } from 'vitest'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** The program as it is installed; it runs what was built. */
export const BIN = at('../bin/polygraft.js')
const DIST = at('../dist/main.js')
/** Folder of the trained trio: base, instruct, cpt. */
export const TRIO = at('../../../tools/trio/checkpoints')
export const BASE = join(TRIO, 'base')
export const INSTRUCT = join(TRIO, 'instruct')
export const CPT = join(TRIO, 'cpt')

if (!existsSync(DIST))
  throw new Error(`${DIST} is missing. Build it with \`npm run build\`; \`npm test\` does so itself.`)

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface RunOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
}

/** Starts the program without waiting for it. */
export function start(
  args: readonly string[],
  { cwd, env }: RunOptions = {},
): ChildProcess & { ended: Promise<Ended> } {
  return startAny(process.execPath, [BIN, ...args], { ...(cwd ? { cwd } : {}), ...(env ? { env } : {}) })
}

/** Starts any program without waiting for it. */
export function startAny(file: string, args: readonly string[], { cwd, env }: RunOptions = {}) {
  const child = spawn(file, args, { cwd, env: { ...process.env, NO_COLOR: '1', ...env } })
  const ended = new Promise<Ended>((resolve, reject) => {
    let [stdout, stderr] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    child.once('error', reject).once('close', (code) => resolve({ code, stdout, stderr }))
  })
  return Object.assign(child, { ended })
}

/** Runs `polygraft ...args`. */
export function run(args: readonly string[], options?: RunOptions): Promise<Ended> {
  return start(args, options).ended
}

/** Runs with --json: stdout must be exactly one JSON object on one line. */
export async function runJson(args: readonly string[], options?: RunOptions) {
  const ended = await run([...args, '--json'], options)
  // biome-ignore lint/suspicious/noExplicitAny: tests look into it freely
  return { ...ended, json: parseOnly(ended) as any }
}

function parseOnly({ stdout, stderr }: Ended): unknown {
  if (!/^\{.*\}\n$/.test(stdout)) throw new Error(`not one JSON object: ${stdout.slice(0, 500)}\n${stderr}`)
  return JSON.parse(stdout)
}

/** Runs what must work, and gives its result. */
export async function succeed(args: readonly string[], options?: RunOptions) {
  const { code, json, stderr } = await runJson(args, options)
  if (code !== 0) throw new Error(`polygraft ${args.join(' ')} ended with ${code}: ${stderr}`)
  return json
}

export interface Temp {
  readonly dir: string
  at(name: string): string
}

const temps: string[] = []
afterAll(() => Promise.all(temps.map((dir) => rm(dir, { recursive: true, force: true, maxRetries: 3 }))))

/** A temporary folder, removed when the test file ends. */
export async function createTemp(): Promise<Temp> {
  const dir = await mkdtemp(join(tmpdir(), 'polygraft-cli-'))
  temps.push(dir)
  return { dir, at: (name) => join(dir, name) }
}

/** Everything below `dir`, hidden names too, with sizes. */
export async function listing(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true })
  const lines = entries.map(async (entry) => {
    const path = join(entry.parentPath, entry.name)
    return entry.isFile() ? `${path} ${(await readFile(path)).length}` : path
  })
  return (await Promise.all(lines)).sort()
}

/** Bytes of every tensor of a checkpoint, with dtype and shape. */
export async function tensorsOf(dir: string): Promise<Map<string, { type: string; bytes: Buffer }>> {
  const { sources } = await openFolder(dir)
  const tensors = new Map<string, { type: string; bytes: Buffer }>()
  for (const source of sources.values())
    for (const [name, { dtype, shape, file, begin, end }] of source.tensors)
      tensors.set(name, {
        type: `${dtype} [${shape}]`,
        bytes: Buffer.from(await source.shards.get(file)!.slice(begin, end).arrayBuffer()),
      })
  return tensors
}

const TINY: JsonObject = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  vocab_size: 10,
  hidden_size: 8,
  intermediate_size: 6,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
}

export interface ModelOptions {
  readonly config?: JsonObject
  readonly seed?: number
  /** Changes what is stored: dtype and shape by name. */
  readonly edit?: (tensors: Map<string, Spec>) => void
  /** Token strings by id: written as tokenizer.json. */
  readonly tokens?: readonly string[]
  readonly files?: Readonly<Record<string, string>>
}

interface Spec {
  readonly dtype: DType
  readonly shape: readonly number[]
}

/** Writes a tiny model with random weights between 1 and 2 in magnitude. */
export async function writeModel(dir: string, options: ModelOptions = {}): Promise<string> {
  const { tensors, config } = specsOf(options)
  const { header, tensors: places, size } = formatSafetensors(tensors, {})
  const bytes = Buffer.alloc(size)
  bytes.set(header)
  let state = 1 + (options.seed ?? 0)
  for (const { begin, end } of places.values()) {
    for (let at = begin; at + 1 < end; at += 2) {
      state = (state * 48271) % 2147483647
      bytes.writeUInt16LE(0x3f80 | (state & 0x807f), at)
    }
  }
  await mkdir(dir, { recursive: true })
  await writeFile(join(dir, 'model.safetensors'), bytes)
  await writeTexts(dir, config, options)
  return dir
}

/** Writes a model of zeros that takes no space, but for a mark that tells it from others. */
export async function writeSparseModel(dir: string, options: ModelOptions): Promise<string> {
  const { tensors, config } = specsOf(options)
  const { header, tensors: places, size } = formatSafetensors(tensors, {})
  await mkdir(dir, { recursive: true })
  const file = await open(join(dir, 'model.safetensors'), 'w')
  await file.write(header, 0, header.length, 0)
  await file.truncate(size)
  for (const { begin, end } of places.values())
    await file.write(Buffer.from([options.seed ?? 0]), 0, 1, Math.floor((begin + end) / 2))
  await file.close()
  await writeTexts(dir, config, options)
  return dir
}

function specsOf({ config: change = {}, edit }: ModelOptions) {
  const config: JsonObject = { ...TINY, ...change }
  const shapes = expectedTensors(familyOf(config), config)
  const tensors = new Map(
    [...shapes].map(([name, shape]): [string, Spec] => [name, { dtype: 'BF16', shape }]),
  )
  edit?.(tensors)
  return { tensors, config }
}

async function writeTexts(
  dir: string,
  config: JsonObject,
  { tokens, files = {} }: ModelOptions,
): Promise<void> {
  const vocab = tokens && Object.fromEntries(tokens.map((token, id) => [token, id]))
  const texts = {
    'config.json': JSON.stringify(config),
    ...(vocab
      ? { 'tokenizer.json': JSON.stringify({ model: { type: 'WordLevel', vocab }, added_tokens: [] }) }
      : {}),
    ...files,
  }
  for (const [name, text] of Object.entries(texts)) await writeFile(join(dir, name), text)
}

/** A copy of a checkpoint that a test may spoil. */
export async function copyOf(from: string, to: string): Promise<string> {
  await cp(from, to, { recursive: true })
  return to
}

/** Changes a JSON file in place. */
export async function editJson(path: string, edit: (value: Record<string, unknown>) => void): Promise<void> {
  const value = JSON.parse(await readFile(path, 'utf8'))
  edit(value)
  await writeFile(path, JSON.stringify(value))
}

/** Flips one bit in the middle of a file. */
export async function flipBit(path: string): Promise<void> {
  const bytes = await readFile(path)
  const middle = bytes.length >> 1
  bytes[middle] = bytes[middle]! ^ 1
  await writeFile(path, bytes)
}

/** The one problem of that code; an error when there is none. */
export function problemOf(problems: readonly Problem[], code: string): Problem {
  const found = problems.find((problem) => problem.code === code)
  if (!found) throw new Error(`no ${code} among ${JSON.stringify(problems)}`)
  return found
}
