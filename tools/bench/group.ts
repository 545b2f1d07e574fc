import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'tsup'
import { type Case, type Places, polygraft } from './cases.js'
import { writeData } from './data.js'
import { type Command, measure, type Usage } from './measure.js'
import { hasMergekit, mergekitStart } from './mergekit.js'
import { benchModels, modelBytes } from './model.js'
import type { Group, StartUp } from './report.js'
import { type RoundOptions, runRounds } from './rounds.js'

const MERGE = fileURLToPath(new URL('./merge.ts', import.meta.url))
const WORKER = fileURLToPath(new URL('../../packages/engine/src/node/worker.ts', import.meta.url))
const FIRST_BYTE = fileURLToPath(new URL('first-byte.cjs', import.meta.url))
const SIGKILL = 9
const TINY_BYTES = 2 ** 20

/** Where scratch files go, and merge.ts bundled. */
export interface Workshop {
  readonly scratch: string
  readonly merge: string
  readonly threads: number
}

/** merge.ts is bundled as the command line is built, so that its start costs what the command's does. */
export async function createWorkshop(scratch: string, threads: number): Promise<Workshop> {
  const built = join(scratch, 'merge')
  await build({
    config: false,
    silent: true,
    entry: { merge: MERGE, worker: WORKER },
    format: 'esm',
    target: 'node20',
    outDir: built,
    outExtension: () => ({ js: '.js' }),
    noExternal: [/^@polygraft\//],
  })
  writeFileSync(join(built, 'package.json'), '{ "type": "module" }')
  return { scratch, merge: join(built, 'merge.js'), threads }
}

/** Makes data for cases of one number of experts, measures them, and removes the data. */
export async function runGroup(
  cases: readonly Case[],
  sizeBytes: number,
  workshop: Workshop,
  options: RoundOptions,
): Promise<Group> {
  const { experts } = cases[0]!
  const models = benchModels(3 * sizeBytes, experts)
  const places = makePlaces(workshop, `data-${experts}`)
  try {
    writeData(places.data, models)
    const measured = await runRounds(cases, places, options)
    const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20)
    const [dense, cpt] = [models.dense, models.cpt].map((model) => mebibytes(modelBytes(model)))
    const kind = experts === 1 ? 'Dense' : `A mixture of ${experts} experts`
    return {
      title: `${kind}: base and instruct ${dense} MiB each, cpt ${cpt} MiB, BF16`,
      measured,
    }
  } finally {
    rmSync(places.data, { recursive: true, force: true })
  }
}

/** Wall time where there is next to nothing to do: to the end, and to where a thread would write the first byte of a tensor. */
export function measureStartUps(
  workshop: Workshop,
  commands: ReadonlySet<string>,
  rounds: number,
): StartUp[] {
  const places = makePlaces(workshop, 'tiny')
  const models = benchModels(3 * TINY_BYTES, 1)
  writeData(places.data, models)
  const starts = [
    ['`node --eval 0`', { argv: [process.execPath, '--eval', '0'] }],
    ['`polygraft --version`', polygraft('--version')],
    ...(commands.has('graft') ? graftStarts(places) : []),
    ...(hasMergekit() ? ([['`mergekit-yaml --help`', mergekitStart()]] as const) : []),
  ] as const
  const usages = starts.map((): Usage[] => [])
  for (let round = -1; round < rounds; round++)
    for (const [i, [, command]] of starts.entries()) {
      rmSync(places.out, { recursive: true, force: true })
      mkdirSync(places.out)
      const usage = measure(command, places.data)
      if (round >= 0) usages[i]!.push(usage)
    }
  return starts.map(([label], i) => ({ label, usages: usages[i]! }))
}

function graftStarts({ data, out }: Places): (readonly [string, Command])[] {
  const inputs = [join(data, 'cpt'), '--base', join(data, 'base'), '--post', join(data, 'instruct')]
  const { argv } = polygraft('graft', ...inputs, '-o', join(out, 'tiny'), '--json', '--threads', '2')
  const [program, ...args] = argv
  const killed = { argv: [program!, '--require', FIRST_BYTE, ...args], code: -SIGKILL }
  return [
    ['`polygraft graft --threads 2` of 3 × 1 MiB, to its first byte', killed],
    ['the same, to the end', { argv }],
  ]
}

/** Names of the commands that the built polygraft has. */
export function availableCommands(): ReadonlySet<string> {
  const [program, ...args] = polygraft('--help').argv
  const help = execFileSync(program!, args, { encoding: 'utf8' })
  const list = help.slice(help.indexOf('Commands:'))
  return new Set([...list.matchAll(/^ {2}([a-z]+)/gm)].map(([, name]) => name!))
}

function makePlaces({ scratch, merge, threads }: Workshop, name: string): Places {
  const data = join(scratch, name)
  mkdirSync(data, { recursive: true })
  return { data, out: join(data, 'out'), merge, threads }
}
