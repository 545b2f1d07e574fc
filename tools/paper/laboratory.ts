import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DEFAULT_MAX_SHARD_BYTES, DEFAULT_MEMORY_BYTES, writeCheckpoint } from '@polygraft/engine'
import type { Checkpoint } from '@polygraft/tensor'
import { createFolder, openFolder } from '@polygraft/tensor-io/node'
import { type Amounts, measure, type Scores, type Split } from './evaluate.js'
import { GRAFTS } from './merges.js'
import { MODELS } from './models.js'
import type { PaperStage } from './stage.js'
import { createWorld } from './world.js'

/** Every model of the experiment, in an order in which they can be made. */
export const STAGES: readonly PaperStage[] = [...MODELS, ...GRAFTS]
const BY_NAME = new Map(STAGES.map((stage) => [stage.name, stage]))

/** One seed's models and scores, each made when it is first asked for and kept in `dir`. */
export interface Laboratory {
  readonly seed: number
  /** What the trainings so far took, and the commits that they were done at. */
  costs(): { readonly cpuSeconds: number; readonly commits: readonly string[] }
  /** The scores of a stage; undefined where that would take a training, and `mayTrain` is false. */
  scores(name: string, split: Split): Promise<Scores | undefined>
}

export interface LaboratoryOptions {
  readonly dir: string
  readonly seed: number
  readonly scale: number
  readonly amounts: Amounts
  readonly mayTrain: boolean
  /** Of the sources; noted with every training. */
  readonly commit: string
  say(line: string): void
}

interface Cost {
  readonly cpuSeconds: number
  readonly commit: string
}

export function createLaboratory({
  dir,
  seed,
  scale,
  amounts,
  mayTrain,
  commit,
  say,
}: LaboratoryOptions): Laboratory {
  mkdirSync(dir, { recursive: true })
  const world = createWorld(seed)
  const isThere = (name: string): boolean => {
    const { isTrained, needs } = stageOf(name)
    return isTrained ? existsSync(join(dir, name)) : needs.every(isThere)
  }

  /** The model: opened where it was made before, else made of what it needs; trained ones are kept, whole or not at all. */
  async function checkpoint(name: string): Promise<Checkpoint> {
    const stage = stageOf(name)
    const folder = join(dir, name)
    if (stage.isTrained && existsSync(folder)) return openFolder(folder)
    const inputs: Checkpoint[] = []
    for (const need of stage.needs) inputs.push(await checkpoint(need))
    const onStep = (step: number, loss: number) => {
      if (step % 100 === 0) say(`seed ${seed}  ${name}  step ${step}  loss ${loss.toFixed(3)}`)
    }
    const before = process.cpuUsage()
    const made = await stage.make(inputs, { seed, scale, world, onStep })
    if (!stage.isTrained) return made
    const { user, system } = process.cpuUsage(before)
    await keep(made, folder)
    writeFileSync(
      join(dir, `${name}.cost.json`),
      `${JSON.stringify({ cpuSeconds: (user + system) / 1e6, commit })}\n`,
    )
    return openFolder(folder)
  }

  return {
    seed,
    costs() {
      const costs: Cost[] = readdirSync(dir)
        .filter((file) => file.endsWith('.cost.json'))
        .map((file) => JSON.parse(readFileSync(join(dir, file), 'utf8')))
      return {
        cpuSeconds: costs.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0),
        commits: [...new Set(costs.map(({ commit }) => commit))],
      }
    },
    async scores(name, split) {
      const file = join(dir, `${name}.${split}.json`)
      if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8'))
      if (!mayTrain && !isThere(name)) return undefined
      const scores = await measure(await checkpoint(name), world, seed, split, amounts)
      writeFileSync(file, `${JSON.stringify(scores)}\n`)
      const { originalInstructions, newInstructions } = scores
      say(
        `seed ${seed}  ${name}  ${split}  O ${percent(originalInstructions)}  N ${percent(newInstructions)}`,
      )
      return scores
    },
  }
}

function stageOf(name: string): PaperStage {
  const stage = BY_NAME.get(name)
  if (!stage) throw new Error(`no stage is called ${name}`)
  return stage
}

async function keep(checkpoint: Checkpoint, folder: string): Promise<void> {
  const output = await createFolder(folder)
  try {
    const limits = { maxShardBytes: DEFAULT_MAX_SHARD_BYTES, memoryBytes: DEFAULT_MEMORY_BYTES }
    await writeCheckpoint(checkpoint, output, { ...limits, version: 'paper' })
    await output.publish()
  } catch (error) {
    await output.discard()
    throw error
  }
}

function percent(share: number): string {
  return (share * 100).toFixed(1)
}
