// `npm run paper [-- --help]`: the experiment in miniature, from the generator to docs/paper.md. A model that is there already is not made again.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { createLaboratory } from './laboratory.js'
import { formatReport } from './report.js'
import { PARTS } from './rows.js'
import { tableOf } from './table.js'

const HELP = `npm run paper -- [options]
  --seeds <list>    worlds and trainings (0)
  --parts <list>    tables to make, of: ${PARTS.map(({ name }) => name).join(', ')} (all)
  --scale <x>       share of each training's steps (1)
  --kept            train nothing: report what was trained before, each row on the seeds that have it
  --dir <dir>       where models and scores are kept (out/paper)
  --report <dir>    where paper.md and its plots go (out/paper; docs for the page of the repository)`

const root = fileURLToPath(new URL('../../', import.meta.url))
const { values: options } = parseArgs({
  options: {
    seeds: { type: 'string', default: '0' },
    parts: { type: 'string', default: PARTS.map(({ name }) => name).join(',') },
    scale: { type: 'string', default: '1' },
    kept: { type: 'boolean', default: false },
    dir: { type: 'string', default: join(root, 'out/paper') },
    report: { type: 'string', default: join(root, 'out/paper') },
    help: { type: 'boolean', default: false },
  },
})

if (options.help) console.log(HELP)
else await main()

async function main(): Promise<void> {
  const scale = Number(options.scale)
  const amounts = scale < 1 ? { documents: 8, items: 35 } : { documents: 48, items: 350 }
  const seeds = options.seeds.split(',').map(Number)
  const commit = execFileSync('git', ['describe', '--always', '--dirty'], {
    cwd: root,
    encoding: 'utf8',
  }).trim()
  const laboratories = seeds.map((seed) =>
    createLaboratory({
      ...{ seed, scale, amounts, mayTrain: !options.kept, commit, say: console.log },
      dir: join(options.dir, `scale-${scale}`, `seed-${seed}`),
    }),
  )
  const wanted = PARTS.filter(({ name }) => options.parts.split(',').includes(name))
  const tables = []
  for (const part of wanted) tables.push({ part, rows: await tableOf(part, laboratories) })
  const command = ['npm run paper --', ...process.argv.slice(2)].join(' ')
  const costs = laboratories.map(({ seed, costs }) => ({ seed, ...costs() }))
  const facts = {
    ...{ command, commit, scale },
    trainedWith: [...new Set(costs.flatMap(({ commits }) => commits))],
    cpuSeconds: new Map(costs.map(({ seed, cpuSeconds }) => [seed, cpuSeconds])),
  }
  for (const [path, content] of formatReport(tables, facts)) {
    const file = join(options.report, path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, content)
    console.log(`wrote ${file}`)
  }
}
