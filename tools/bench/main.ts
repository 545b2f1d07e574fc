// `npm run bench [-- --help]`: what writing commands cost beside cp and mergekit, into docs/benchmarks.md. `npm run bench model`: the decoder
// beside PyTorch.
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { parseBytes } from '../../apps/cli/src/arguments.js'
import { CASES } from './cases.js'
import { availableCommands, createWorkshop, measureStartUps, runGroup } from './group.js'
import { BUSY_SHARE, busyShare, load, machineFacts } from './machine.js'
import { canMeasure, spreadOf, type Usage } from './measure.js'
import { buildMergekit, hasMergekit, mergekitVersions } from './mergekit.js'
import { formatReport, type Group } from './report.js'
import { benchTrain } from './train.js'

const HELP = `npm run bench -- [options]
  train             training beside PyTorch, in place of all else
  --size <size>     of each of three inputs where they are dense; a mixture's three come to as much together (1GiB)
  --quick           --size 64MiB --rounds 3
  --rounds <n>      timed rounds (5)
  --threads <n>     threads of polygraft and mergekit (2)
  --only <text>     only cases whose name has this in it
  --dir <dir>       scratch folder (out/bench); takes some eight times the size
  --mergekit        build mergekit's environment first; without it mergekit is measured only where that exists
  --without-mergekit  measure it nowhere
  --report <file>   where to write (docs/benchmarks.md; in out/ below 1GiB or with --only)`

const MICRO = [
  new URL('./kernels.ts', import.meta.url),
  new URL('./reductions.ts', import.meta.url),
  new URL('./matmul.ts', import.meta.url),
]
const FULL_BYTES = 2 ** 30
const root = fileURLToPath(new URL('../../', import.meta.url))
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    size: { type: 'string' },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    threads: { type: 'string', default: '2' },
    only: { type: 'string', default: '' },
    dir: { type: 'string', default: join(root, 'out/bench') },
    mergekit: { type: 'boolean', default: false },
    'without-mergekit': { type: 'boolean', default: false },
    report: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
const size = parseBytes(options.size ?? (options.quick ? '64MiB' : '1GiB'))
const rounds = Number(options.rounds ?? (options.quick ? 3 : 5))

if (options.help) console.log(HELP)
else if (positionals[0] === 'train') await benchTrain()
else if (positionals[0] === 'model') await import('./decoder/main.js')
else await main()

async function main(): Promise<void> {
  if (!canMeasure()) throw new Error('Python 3 is needed to measure with. Set PYTHON to one.')
  if (options.mergekit) buildMergekit()
  if (!hasMergekit())
    console.log('mergekit: skipped, its environment is not built (npm run bench -- --mergekit)')
  const scratch = join(options.dir, `run-${process.pid}`)
  try {
    mkdirSync(scratch, { recursive: true })
    const text = await run(scratch)
    const isFull = size >= FULL_BYTES && options.only === ''
    const report = options.report ?? join(root, isFull ? 'docs' : 'out', 'benchmarks.md')
    mkdirSync(dirname(report), { recursive: true })
    writeFileSync(report, text)
    console.log(`\n${text}\nwritten to ${relative(process.cwd(), report)}`)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** The report of everything. */
async function run(scratch: string): Promise<string> {
  const loadBefore = load()
  const commands = availableCommands()
  const workshop = await createWorkshop(scratch, Number(options.threads))
  const busy = [await busyShare()]
  console.log(`load average ${loadBefore.toFixed(2)}; others take ${percent(busy[0]!)} of the processors`)
  const onRun = (key: string, { wallSeconds, cpuSeconds }: Usage, others: number) => {
    busy.push(others)
    const warning = others > BUSY_SHARE ? `  (others took ${percent(others)} just before)` : ''
    console.log(`${key.padEnd(40)} ${wallSeconds.toFixed(2)} s, CPU ${cpuSeconds.toFixed(2)} s${warning}`)
  }
  const cases = CASES.filter(({ id, needs }) => id.includes(options.only) && (!needs || commands.has(needs)))
  const groups: Group[] = []
  for (const number of new Set(cases.map(({ experts }) => experts))) {
    const sharing = cases.filter(({ experts }) => experts === number)
    groups.push(await runGroup(sharing, size, workshop, { rounds, mergekit: measuresMergekit(), onRun }))
  }
  return formatReport({
    command: shownCommand(),
    date: new Date().toISOString().slice(0, 10),
    machine: [...machineFacts(), `${rounds} rounds, --threads ${options.threads}`],
    quiet: [`load average before the start ${loadBefore.toFixed(2)}`, quietness(busy)],
    groups,
    startUps: measureStartUps(workshop, commands, rounds),
    mergekit: measuresMergekit() ? mergekitVersions() : 'not measured',
    notMeasured: notMeasured(commands),
    kernels: MICRO.map(runScript).join('\n'),
  })
}

/** Asked when its environment has been built. */
function measuresMergekit(): boolean {
  return hasMergekit() && !options['without-mergekit']
}

function notMeasured(commands: ReadonlySet<string>): string[] {
  const absent = CASES.filter(({ needs }) => needs && !commands.has(needs)).map(({ id }) => id)
  const left = CASES.filter(({ id }) => !id.includes(options.only)).map(({ id }) => id)
  return [
    ...(absent.length > 0 ? [`${absent.join(', ')}: not built`] : []),
    ...(left.length > 0 ? [`${left.join('; ')}: left out by --only`] : []),
    ...(measuresMergekit() ? [] : ['mergekit']),
    'mergekit for graft, upcycle, delta and diff: it has no such method',
    'a cold page cache, other file systems, other machines',
  ]
}

/** As it would be typed, without paths. */
function shownCommand(): string {
  const { quick, mergekit } = options
  const given = (['size', 'rounds', 'threads', 'only'] as const).filter((name) =>
    process.argv.some((arg) => arg.startsWith(`--${name}`)),
  )
  const words = [
    ...(quick ? ['--quick'] : []),
    ...(mergekit ? ['--mergekit'] : []),
    ...(options['without-mergekit'] ? ['--without-mergekit'] : []),
    ...given.map((name) => `--${name} ${options[name]}`),
  ]
  return ['npm run bench', ...(words.length > 0 ? ['--', ...words] : [])].join(' ')
}

function quietness(busy: readonly number[]): string {
  const { median, most } = spreadOf(busy)
  const share = `other processes took ${percent(median)} of the processors in the pauses between runs, at most ${percent(most)}`
  return median > BUSY_SHARE ? `**the machine was busy: ${share}; do not trust these times**` : share
}

/** What a script of this folder prints. */
function runScript(script: URL): string {
  return execFileSync(process.execPath, [...process.execArgv, fileURLToPath(script)], { encoding: 'utf8' })
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`
}
