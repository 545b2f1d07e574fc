import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { encode, randomValues } from '@polygraft/kernels'
import { byteSize } from '@polygraft/tensor'
import { formatSafetensors } from '@polygraft/tensor-io'
import type { BenchModel, BenchModels } from './model.js'

/*
 * Checkpoints made quickly: elements come from two pools that are drawn once and read from a different place for each
 * stretch of each tensor. Weights are normal with deviation 0.02; a fine-tuned model differs from its base in two fifths
 * of the elements, by one to three units in the last place of BF16, as post-training at a small learning rate does.
 */

const STRETCH = 256 * 1024
const POOL = 4 * 2 ** 20 + STRETCH
// Below this magnitude (a denormal, as bits) a step could cross zero.
const LEAST_BITS = 8
const WEIGHT_DEVIATION = 0.02
const CHANGED_SHARE = 0.4

/** Writes `base`, `instruct` and `cpt` below `dir`, each one safetensors file with its config. */
export function writeData(dir: string, { dense, cpt }: BenchModels): void {
  const pools = drawPools()
  write(join(dir, 'base'), dense, pools)
  write(join(dir, 'instruct'), dense, pools, 1)
  write(join(dir, 'cpt'), cpt, pools, 2)
}

interface Pools {
  /** BF16 bits of weights. */
  readonly weights: Uint16Array
  /** What fine-tuning adds to the bits, in units in the last place. */
  readonly steps: Int8Array
}

function drawPools(): Pools {
  const weights = new Uint16Array(POOL)
  const values = new Float32Array(POOL)
  randomValues('normal', WEIGHT_DEVIATION, 0, 'weights', 0, values)
  encode('BF16', values, new Uint8Array(weights.buffer))
  for (let i = 0; i < POOL; i++) if ((weights[i]! & 0x7fff) < LEAST_BITS) weights[i] = LEAST_BITS
  const steps = new Int8Array(POOL)
  randomValues('uniform', 1, 0, 'steps', 0, values)
  for (let i = 0; i < POOL; i++) {
    const draw = values[i]! / CHANGED_SHARE
    if (Math.abs(draw) < 1) steps[i] = Math.sign(draw) * Math.ceil(Math.abs(draw) ** 3 * 3)
  }
  return { weights, steps }
}

/** @param variant which fine-tuning of the base; left out for the base itself. */
function write(dir: string, model: BenchModel, pools: Pools, variant?: number): void {
  mkdirSync(dir, { recursive: true })
  writeFileSync(join(dir, 'config.json'), JSON.stringify(model.config, undefined, 2))
  const specs = [...model.shapes].map(([name, shape]) => [name, { dtype: 'BF16', shape }] as const)
  const { header, tensors } = formatSafetensors(specs, { format: 'pt' })
  const file = openSync(join(dir, 'model.safetensors'), 'w')
  try {
    writeSync(file, header)
    for (const [name, { begin, end }] of tensors) {
      const place = hash(model.origin(name) ?? name)
      const steps = variant === undefined ? undefined : hash(`${variant} ${name}`)
      writeTensor(file, (end - begin) / byteSize('BF16', 1), pools, place, steps)
    }
  } finally {
    closeSync(file)
  }
}

function writeTensor(file: number, elements: number, pools: Pools, place: number, stepPlace?: number): void {
  const stretch = new Uint16Array(STRETCH)
  for (let begin = 0, i = 0; begin < elements; begin += STRETCH, i++) {
    const count = Math.min(STRETCH, elements - begin)
    const from = startOf(place, i)
    stretch.set(pools.weights.subarray(from, from + count))
    if (stepPlace !== undefined) {
      const steps = pools.steps.subarray(startOf(stepPlace, i))
      for (let k = 0; k < count; k++) stretch[k]! += steps[k]!
    }
    writeSync(file, new Uint8Array(stretch.buffer, 0, count * 2))
  }
}

/** Where in a pool stretch `i` of a tensor begins. */
function startOf(place: number, i: number): number {
  return (Math.imul(place + i, 0x9e3779b1) >>> 0) % (POOL - STRETCH)
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return value >>> 0
}
