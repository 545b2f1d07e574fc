import { type Backend, createCpuBackend, openModel, type RoutingValues } from '@polygraft/model'
import type { Checkpoint, FloatDType } from '@polygraft/tensor'
import { createDecoderBackend, type Gpu } from '@polygraft/webgpu'
import { FAMILY_CONFIGS } from './family-cases.js'
import { tinyCheckpoint } from './tiny-checkpoint.js'

/** One comparison of the devices, in Node or a browser: it throws when it fails. */
export interface ModelCase {
  readonly name: string
  run(gpu: Gpu): Promise<void>
}

const DTYPES: readonly FloatDType[] = ['F32', 'BF16', 'F16']
/** More than a tile's 4 rows at first, then one at a time. */
const TOKENS = [0, 9, 40, 77, 5, 3, 90, 12, 64, 31, 8]
const FIRST = 8
/** Of the largest logit. */
const TOLERANCE = 2e-5

/** Each family and option, its weights of one dtype after the other. */
export const MODEL_CASES: readonly ModelCase[] = FAMILY_CONFIGS.map(([name, config], i) => {
  const dtype = DTYPES[i % DTYPES.length]!
  return {
    name: `${name}, ${dtype}: the logits and experts of the CPU`,
    run: (gpu) => compare(tinyCheckpoint(config, dtype), gpu),
  }
})

/** @throws where the devices disagree. */
export async function compare(checkpoint: Checkpoint, gpu: Gpu): Promise<void> {
  const expected = await run(checkpoint, await createCpuBackend())
  const actual = await run(checkpoint, createDecoderBackend(gpu))
  const scale = expected.logits.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const off = expected.logits.map((value, i) => Math.abs(value - actual.logits[i]!) / scale)
  const worst = off.reduce((a, b) => Math.max(a, b))
  if (!(scale > 0 && worst <= TOLERANCE)) throw new Error(`logits off by ${worst} of ${scale}`)
  if (`${actual.greedy}` !== `${expected.greedy}`)
    throw new Error(`greedy tokens ${actual.greedy}, expected ${expected.greedy}`)
  if (`${actual.experts}` !== `${expected.experts}`)
    throw new Error(`experts ${actual.experts}, expected ${expected.experts}`)
}

/** Logits and chosen experts of a prompt beside another sequence, then of one token after the other. */
async function run(checkpoint: Checkpoint, backend: Backend) {
  const experts: number[] = []
  const observer = { routing: (_: number, values: RoutingValues) => experts.push(...values.experts) }
  try {
    const model = await openModel(checkpoint, { backend })
    const [cache, other] = [model.createCache(TOKENS.length), model.createCache(3)]
    const length = TOKENS.length
    const spans = [
      { cache: other, begin: 0, tokens: [7, 70, 17], wanted: 'all' as const, length },
      { cache, begin: 0, tokens: TOKENS.slice(0, FIRST), wanted: 'all' as const, length },
    ]
    const logits = [...(await model.forward(spans, observer))]
    for (let begin = FIRST; begin < length; begin++) {
      const tokens = TOKENS.slice(begin, begin + 1)
      logits.push(...(await model.forward([{ cache, begin, tokens, length }], observer)))
    }
    const last = { cache, begin: length - 3, tokens: TOKENS.slice(-3), wanted: 'all' as const, length }
    const greedy = [...(await model.forwardGreedy([last]))]
    await model.close()
    return { logits, experts, greedy }
  } finally {
    await backend.close()
  }
}
