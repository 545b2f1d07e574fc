import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { styleText } from 'node:util'
import { type VerifyReport, verify, verifyDigests, verifyUpcycle } from '@polygraft/graft'
import type { ByteSource, Checkpoint } from '@polygraft/tensor'
import { fileSource } from '@polygraft/tensor-io/node'
import { type Command, Option } from 'commander'
import { parsePlaced } from '../arguments.js'
import { plural } from '../format.js'
import { readManifest } from '../manifest.js'
import { openCheckpoint, openCheckpoints } from '../open.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

interface Arguments {
  readonly base?: string
  readonly post?: string
  readonly cpt?: string
  readonly expertFrom?: ReadonlyMap<number, string>
  readonly json?: boolean
}

/** `polygraft verify <dir> [--base --post --cpt]` */
export function addVerify(program: Command): void {
  const command = program
    .command('verify')
    .description(
      "Check a written checkpoint: the digests of its manifest and, with its sources, the method's properties.",
    )
    .argument('<dir>', 'a folder that polygraft has written')
    .option('--base <base>', 'the dense base; alone it checks an upcycled checkpoint')
    .option('--post <post>', 'the post-trained version of the base')
    .option('--cpt <cpt>', 'the checkpoint that was grafted onto')
    .addOption(
      new Option(
        '--expert-from <e=checkpoint>',
        'with --base alone: the dense model that expert e came from; repeat it for more',
      ).argParser(parsePlaced),
    )
  addExample(
    addJson(command),
    'polygraft verify ./moe-instruct',
    'polygraft verify ./moe-instruct --base ./base --post ./instruct --cpt ./moe-cpt',
  )
  command.action(run)
}

/** All files that a manifest may list; only names that opening has found to lie inside of the folder, and two fixed ones. */
function filesOf({ sources, files }: Checkpoint, folder: string): ReadonlyMap<string, ByteSource> {
  const shards = [...sources.values()].flatMap((source) => [...source.shards])
  const fixed = ['config.json', 'model.safetensors.index.json'].filter((name) =>
    existsSync(join(folder, name)),
  )
  return new Map<string, ByteSource>([
    ...shards,
    ...files,
    ...fixed.map((name) => [name, fileSource(join(folder, name))] as const),
  ])
}

async function run(location: string, args: Arguments, command: Command): Promise<void> {
  const sources = [args.base, args.post, args.cpt]
  if ((args.post !== undefined || args.cpt !== undefined) && sources.includes(undefined))
    command.error('error: to check a graft against its sources give all three: --base, --post and --cpt', {
      exitCode: 2,
    })
  const terminal = createTerminal(args.json ?? false)
  const manifest = await readManifest(location)
  const output = await openCheckpoint(location)
  const meter = terminal.progress('verify')
  const onProgress = (done: number, total: number) => meter.update(done, total)
  const reports = [await verifyDigests(manifest, filesOf(output, location), { onProgress })]
  if (args.post !== undefined) {
    const [base, post, cpt] = await openCheckpoints(args.base!, args.post, args.cpt!)
    reports.push(await verify(output, { base, post, cpt }, { onProgress }))
  } else if (args.base !== undefined) {
    const from = [...(args.expertFrom ?? [])]
    const [base, ...models] = await openCheckpoints(args.base, ...from.map(([, place]) => place))
    const expertsFrom = new Map(from.map(([expert], i) => [expert, models[i]!]))
    reports.push(await verifyUpcycle(output, { base, expertsFrom }, { onProgress }))
  }
  meter.done()
  const report = { ok: reports.every(({ ok }) => ok), checks: reports.flatMap(({ checks }) => checks) }
  terminal.result({ checkpoint: location, ...report }, () => describe(report))
  if (!report.ok) process.exitCode = 1
}

/** One line per check. */
function describe(report: VerifyReport): string {
  const lines = report.checks.map((check) => {
    const mark = check.ok ? styleText('green', '✓') : styleText('red', '✗')
    return `${mark} ${check.name}${check.detail ? `: ${check.detail}` : ''}`
  })
  const failed = report.checks.filter((check) => !check.ok).length
  return [
    ...lines,
    failed > 0 ? `${failed} of ${plural(lines.length, 'check')} failed` : allHold(lines.length),
  ].join('\n')
}

function allHold(checks: number): string {
  return checks === 1 ? '1 check, which holds' : `${checks} checks, all hold`
}
