// `npm run bench train`: tokens per CPU second of training on one thread, and per second on two, beside PyTorch with transformers 5, in turn.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expectedTensors, familyOf } from '@polygraft/architectures'
import { createTeam, DEFAULT_MAX_SHARD_BYTES, DEFAULT_MEMORY_BYTES, writeCheckpoint } from '@polygraft/engine'
import type { Checkpoint, JsonObject } from '@polygraft/tensor'
import { createFolder } from '@polygraft/tensor-io/node'
import { createTrainer, decoderSpec, loadValues, selectTensors } from '@polygraft/train'

const PYTHON = fileURLToPath(new URL('../conformance/.venv-v5/bin/python', import.meta.url))
const SCRIPT = fileURLToPath(new URL('./train.py', import.meta.url))
const ROUNDS = 3
const WARMUP_STEPS = 3

const small = {
  model_type: 'mixtral',
  architectures: ['MixtralForCausalLM'],
  hidden_act: 'silu',
  rms_norm_eps: 1e-5,
}
const CASES: readonly { name: string; config: JsonObject; steps: number }[] = [
  {
    name: "the miniature's mixture, 0.67 M",
    steps: 20,
    config: {
      ...small,
      ...{ vocab_size: 128, hidden_size: 64, intermediate_size: 192, num_hidden_layers: 4 },
      ...{ num_attention_heads: 4, num_key_value_heads: 4, num_local_experts: 4, num_experts_per_tok: 2 },
    },
  },
  {
    name: '20 M',
    steps: 3,
    config: {
      ...small,
      ...{ vocab_size: 4096, hidden_size: 384, intermediate_size: 1024, num_hidden_layers: 6 },
      ...{ num_attention_heads: 6, num_key_value_heads: 6, num_local_experts: 2, num_experts_per_tok: 2 },
    },
  },
]

/** Measures every case and prints the medians and their ratio. */
export async function benchTrain(): Promise<void> {
  if (!existsSync(PYTHON)) throw new Error(`${PYTHON} is missing: bash tools/conformance/environments.sh v5`)
  for (const { name, config, steps } of CASES) {
    const dir = mkdtempSync(join(tmpdir(), 'polygraft-bench-'))
    try {
      const checkpoint = random(config)
      await write(checkpoint, join(dir, 'model'))
      for (const threads of [1, 2]) console.log(`${name}, ${await compare(checkpoint, dir, steps, threads)}`)
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  }
}

async function compare(checkpoint: Checkpoint, dir: string, steps: number, threads: number): Promise<string> {
  const [ours, theirs, peaks]: [number[], number[], number[]] = [[], [], []]
  for (let round = 0; round < ROUNDS; round++) {
    const { tokensPerSecond, peakBytes } = await measure(checkpoint, steps, threads)
    ours.push(tokensPerSecond)
    peaks.push(peakBytes)
    theirs.push(torch(join(dir, 'model'), steps, threads))
  }
  const [own, other] = [median(ours), median(theirs)]
  const peak = `${Math.round(Math.max(...peaks) / 2 ** 20)} MiB of weights, gradients, moments and activations`
  const unit = threads === 1 ? 'one thread: tokens per CPU second' : `${threads} threads: tokens per second`
  return `${unit} ${own}, PyTorch ${other}: ${(own / other).toFixed(2)} of it; ${peak}`
}

/** Steps on 16 documents of 64 random tokens, experts from 1 on and routers trained. */
async function measure(checkpoint: Checkpoint, steps: number, threads: number) {
  const team = threads > 1 ? await createTeam(threads) : undefined
  const { config } = checkpoint
  const spec = decoderSpec(config)
  const trainer = createTrainer(
    spec,
    expectedTensors(familyOf(config), config),
    selectTensors(spec, 'cpt', {}),
    {
      ...{ steps: 100, rate: 1e-4, warmup: 0, floor: 0.1, clip: 1 },
      adam: { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: 0.05 },
      losses: { balance: 0.01, z: 0 },
      ...(team ? { team } : {}),
    },
  )
  await loadValues(checkpoint, trainer.values)
  let state = 1
  const draw = () => {
    state = (state * 48271) % 2147483647
    return state % spec.vocabularySize
  }
  const batch = () => {
    const tokens = Int32Array.from({ length: 1024 }, draw)
    const targets = tokens.map((_, i) => (i % 64 === 63 ? -1 : tokens[i + 1]!))
    return {
      tokens,
      targets,
      segments: Array.from({ length: 16 }, (_, i) => ({ begin: i * 64, end: i * 64 + 64 })),
    }
  }
  for (let i = 0; i < WARMUP_STEPS; i++) trainer.update([batch()])
  const [before, begin] = [process.cpuUsage(), performance.now()]
  for (let i = 0; i < steps; i++) trainer.update([batch()])
  const { user, system } = process.cpuUsage(before)
  const seconds = threads === 1 ? (user + system) / 1e6 : (performance.now() - begin) / 1000
  await team?.close()
  return { tokensPerSecond: Math.round((steps * 1024) / seconds), peakBytes: trainer.peakBytes }
}

function torch(model: string, steps: number, threads: number): number {
  const { stdout, stderr } = spawnSync(PYTHON, [SCRIPT, model, String(steps), String(threads)], {
    encoding: 'utf8',
  })
  const found = /^(\d+) tokens per (CPU )?second$/m.exec(stdout)
  if (!found) throw new Error(`PyTorch did not say how fast it is: ${stderr}`)
  return Number(found[1])
}

function random(config: JsonObject): Checkpoint {
  const tensors = [...expectedTensors(familyOf(config), config)].map(
    ([name, shape]) =>
      [
        name,
        {
          dtype: 'F32' as const,
          shape,
          expr: { op: 'random', distribution: 'normal', scale: 0.02, seed: 0, name } as const,
        },
      ] as const,
  )
  return {
    config,
    floatFields: ['rms_norm_eps'],
    tensors: new Map(tensors),
    files: new Map(),
    sources: new Map(),
    provenance: { recipe: [], skipped: [] },
  }
}

async function write(checkpoint: Checkpoint, path: string): Promise<void> {
  const folder = await createFolder(path)
  const limits = { maxShardBytes: DEFAULT_MAX_SHARD_BYTES, memoryBytes: DEFAULT_MEMORY_BYTES }
  await writeCheckpoint(checkpoint, folder, { ...limits, version: 'bench' })
  await folder.publish()
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!
}
