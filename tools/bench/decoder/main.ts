// `npm run bench model [-- --threads 2 --rounds 7]`: tokens per second of the decoder beside PyTorch's, on one F32 model, in turns.
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createCpuBackend, type Model, openModel } from '@polygraft/model'
import { openFolder } from '@polygraft/tensor-io/node'
import { BUSY_SHARE, busyShare, machineFacts } from '../machine.js'
import { spreadOf } from '../measure.js'

const { values: options } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: 'string', default: '2' }, rounds: { type: 'string', default: '7' } },
})
const [THREADS, ROUNDS] = [Number(options.threads), Number(options.rounds)]
const PROMPT = 64
const KINDS = [
  ['prefill', 128],
  ['decode', 24],
] as const
/** Of the largest of the compared logits. */
const TOLERANCE = 1e-4

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const PYTHON = at('../../conformance/.venv-v5/bin/python')

interface Answer {
  readonly seconds: number
  readonly logits: readonly number[]
}
type Kind = (typeof KINDS)[number][0]

if (existsSync(PYTHON)) await main()
else {
  console.error('PyTorch is not there: run `bash tools/conformance/environments.sh v5` first')
  process.exitCode = 1
}

async function main(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'polygraft-bench-'))
  const peer = startPeer(folder)
  try {
    const { parameters, torch } = (await peer.next()) as { parameters: number; torch: string }
    const backend = await createCpuBackend({ threads: THREADS })
    const model = await openModel(await openFolder(folder), { backend })
    const busy = await busyShare()
    const times = await runRounds(model, peer)
    console.log([...machineFacts(), `PyTorch ${torch}`, `${THREADS} threads each`].join(', '))
    console.log(`Llama of ${(parameters / 1e6).toFixed(1)} M parameters, F32; ${ROUNDS} rounds in turns`)
    if (busy > BUSY_SHARE)
      console.log(
        `others took ${Math.round(busy * 100)} % of the processors before the start: with several threads, do not trust this`,
      )
    for (const [kind, count] of KINDS) console.log(describe(kind, count, times[kind]))
    await backend.close()
  } finally {
    peer.end()
    rmSync(folder, { recursive: true })
  }
}

interface Pair {
  readonly ours: number
  readonly torch: number
}

async function runRounds(model: Model, peer: Peer): Promise<Record<Kind, Pair[]>> {
  const times: Record<Kind, Pair[]> = { prefill: [], decode: [] }
  // The first round warms both up.
  for (let round = 0; round <= ROUNDS; round++)
    for (const [kind, count] of KINDS) {
      const isOursFirst = round % 2 === 0
      const early = isOursFirst ? await runOurs(model, kind, count) : undefined
      const theirs = (await peer.ask(`${kind} ${count}`)) as Answer
      const ours = early ?? (await runOurs(model, kind, count))
      compare(kind, ours, theirs)
      if (round > 0) times[kind].push({ ours: ours.seconds, torch: theirs.seconds })
    }
  return times
}

function tokens(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (i * 7919) % 16384)
}

async function runOurs(model: Model, kind: Kind, count: number): Promise<Answer> {
  const cache = model.createCache(PROMPT + 256)
  const prompt = tokens(kind === 'prefill' ? count : PROMPT)
  let begin = performance.now()
  let logits = await model.forward([{ cache, begin: 0, tokens: prompt }])
  if (kind === 'decode') {
    begin = performance.now()
    for (const [i, token] of tokens(PROMPT + count)
      .slice(PROMPT)
      .entries())
      logits = await model.forward([{ cache, begin: PROMPT + i, tokens: [token] }])
  }
  const seconds = (performance.now() - begin) / 1000
  model.backend.freeCache(cache)
  return { seconds, logits: [...logits.subarray(0, 8)] }
}

function compare(kind: Kind, ours: Answer, theirs: Answer): void {
  const scale = Math.max(...theirs.logits.map(Math.abs))
  const off = Math.max(...theirs.logits.map((logit, i) => Math.abs(logit - ours.logits[i]!))) / scale
  if (!(off <= TOLERANCE)) throw new Error(`${kind}: the two do not compute the same, ${off} apart`)
}

function describe(kind: Kind, count: number, pairs: readonly Pair[]): string {
  const rate = (pick: (pair: Pair) => number) => (count / spreadOf(pairs.map(pick)).median).toFixed(1)
  const { median, least, most } = spreadOf(pairs.map(({ ours, torch }) => torch / ours))
  const ratio = `${median.toFixed(2)} (${least.toFixed(2)}–${most.toFixed(2)})`
  return `${kind.padEnd(8)} ${rate(({ ours }) => ours)} tokens/s, PyTorch ${rate(({ torch }) => torch)}; ratio of each round ${ratio}`
}

interface Peer {
  next(): Promise<unknown>
  ask(line: string): Promise<unknown>
  end(): void
}

function startPeer(folder: string): Peer {
  const env = {
    ...process.env,
    OMP_NUM_THREADS: `${THREADS}`,
    HF_HUB_OFFLINE: '1',
    TRANSFORMERS_VERBOSITY: 'error',
  }
  const child = spawn(PYTHON, [at('peer.py'), folder, `${THREADS}`], {
    env,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  const next = async () => {
    const { value, done } = await lines.next()
    if (done) throw new Error('PyTorch has ended')
    return JSON.parse(value)
  }
  return {
    next,
    ask(line) {
      child.stdin.write(`${line}\n`)
      return next()
    },
    end: () => child.kill(),
  }
}
