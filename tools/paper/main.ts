// `npm run paper [-- --help]`: the experiment in miniature, from the generator to the table. A stage that is there already is not made again.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { DEFAULT_MAX_SHARD_BYTES, DEFAULT_MEMORY_BYTES, writeCheckpoint } from '@polygraft/engine'
import type { Checkpoint } from '@polygraft/tensor'
import { createFolder, openFolder } from '@polygraft/tensor-io/node'
import { measure, type Scores, type Split } from './evaluate.js'
import { formatReport, type Row } from './report.js'
import { type PaperStage, STAGES } from './stages.js'
import { createWorld } from './world.js'

const HELP = `npm run paper -- [options]
  --seeds <list>    worlds and trainings (0)
  --scale <x>       share of each training's steps (1)
  --only <list>     rows to make, by name, with what they need: ${STAGES.map(({ name }) => name).join(', ')}
  --split <name>    test (default), or dev for choosing hyperparameters
  --dir <dir>       where stages are kept (out/paper)
  --report <file>   where the table goes (out/paper/report.md)`

const root = fileURLToPath(new URL('../../', import.meta.url))
const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '0' },
    scale: { type: 'string', default: '1' },
    only: { type: 'string' },
    split: { type: 'string', default: 'test' },
    dir: { type: 'string', default: join(root, 'out/paper') },
    report: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
const scale = Number(options.scale)
const seeds = options.seeds.split(',').map(Number)
const split: Split = options.split === 'dev' ? 'dev' : 'test'
const amounts = scale < 1 ? { documents: 8, items: 35 } : { documents: 48, items: 350 }

if (options.help) console.log(HELP)
else await main()

async function main(): Promise<void> {
  const wanted = STAGES.filter(({ name, title }) =>
    options.only ? options.only.split(',').includes(name) : title,
  )
  const rows = new Map<string, Scores[]>()
  for (const seed of seeds) {
    const dir = join(options.dir, `scale-${scale}`, `seed-${seed}`)
    mkdirSync(dir, { recursive: true })
    for (const stage of wanted) {
      const scores = await scoresOf(stage, seed, dir)
      rows.set(stage.name, [...(rows.get(stage.name) ?? []), scores])
      console.log(`seed ${seed}  ${stage.name}  ${JSON.stringify(scores)}`)
    }
  }
  const table: Row[] = wanted.map(({ name, title = name }) => ({ title, scores: rows.get(name)! }))
  const commit = execFileSync('git', ['describe', '--always', '--dirty'], {
    cwd: root,
    encoding: 'utf8',
  }).trim()
  const command = ['npm run paper --', ...process.argv.slice(2)].join(' ')
  const report = options.report ?? join(options.dir, 'report.md')
  writeFileSync(report, formatReport(table, { command, commit, seeds, scale, split }))
  console.log(`wrote ${report}`)
}

async function scoresOf(stage: PaperStage, seed: number, dir: string): Promise<Scores> {
  const file = join(dir, `${stage.name}.${split}.json`)
  if (existsSync(file)) return JSON.parse(readFileSync(file, 'utf8'))
  const checkpoint = await checkpointOf(stage, seed, dir)
  const scores = await measure(checkpoint, createWorld(seed), seed, split, amounts)
  writeFileSync(file, `${JSON.stringify(scores)}\n`)
  return scores
}

/** The stage's model: opened where it was made before, else made of what it needs and kept, whole or not at all. */
async function checkpointOf(stage: PaperStage, seed: number, dir: string): Promise<Checkpoint> {
  const folder = join(dir, stage.name)
  if (existsSync(folder)) return openFolder(folder)
  const inputs: Checkpoint[] = []
  for (const need of stage.needs)
    inputs.push(await checkpointOf(STAGES.find(({ name }) => name === need)!, seed, dir))
  const onStep = (step: number, loss: number) => {
    if (step % 100 === 0) console.log(`seed ${seed}  ${stage.name}  step ${step}  loss ${loss.toFixed(3)}`)
  }
  const checkpoint = await stage.make(inputs, { seed, scale, world: createWorld(seed), onStep })
  const output = await createFolder(folder)
  try {
    const limits = { maxShardBytes: DEFAULT_MAX_SHARD_BYTES, memoryBytes: DEFAULT_MEMORY_BYTES }
    await writeCheckpoint(checkpoint, output, { ...limits, version: 'paper' })
    await output.publish()
  } catch (error) {
    await output.discard()
    throw error
  }
  return openFolder(folder)
}
