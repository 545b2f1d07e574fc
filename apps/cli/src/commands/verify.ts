import { styleText } from 'node:util'
import { type VerifyReport, verify } from '@polygraft/graft'
import type { Command } from 'commander'
import { CHECKPOINT_HELP, openCheckpoint } from '../open.js'
import { createTerminal } from '../terminal.js'
import { readVocabularies } from '../vocabularies.js'
import { addExample, addJson } from './_options.js'

interface Arguments {
  readonly base?: string
  readonly post?: string
  readonly cpt?: string
  readonly json?: boolean
}

/** `polygraft verify <dir> [--base --post --cpt]` */
export function addVerify(program: Command): void {
  const command = program
    .command('verify')
    .description(
      "Check a written checkpoint: the digests of its manifest and, with its sources, the method's properties.",
    )
    .argument('<checkpoint>', CHECKPOINT_HELP)
    .option('--base <base>', 'the dense base (alone: checks an upcycled checkpoint)')
    .option('--post <post>', 'the post-trained version of the base')
    .option('--cpt <cpt>', 'the checkpoint that was grafted onto')
  addExample(
    addJson(command),
    'polygraft verify ./moe-instruct',
    'polygraft verify ./moe-instruct --base ./base --post ./instruct --cpt ./moe-cpt',
  )
  command.action(run)
}

async function run(location: string, args: Arguments, command: Command): Promise<void> {
  if ((args.post !== undefined || args.cpt !== undefined) && !(args.base && args.post && args.cpt))
    command.error('error: --post and --cpt go together with --base', { exitCode: 2 })
  const terminal = createTerminal(args.json ?? false)
  const output = await openCheckpoint(location)
  const open = async (path: string | undefined) =>
    path === undefined ? undefined : await openCheckpoint(path)
  const [base, post, cpt] = [await open(args.base), await open(args.post), await open(args.cpt)]
  const vocabularies = cpt && base && post ? await readVocabularies({ cpt, base, post }) : {}
  const meter = terminal.progress('verify')
  const report = await verify(output, {
    ...(base ? { base } : {}),
    ...(post ? { post } : {}),
    ...(cpt ? { cpt } : {}),
    vocabularies,
    onProgress: (done: number, total: number) => meter.update(done, total),
  })
  meter.done()
  terminal.result({ checkpoint: location, ...report }, () => describe(report))
  if (!report.ok) process.exitCode = 1
}

/** One line per check. */
export function describe(report: VerifyReport): string {
  const lines = report.checks.map((check) => {
    const mark = check.ok ? styleText('green', '✓') : styleText('red', '✗')
    return `${mark} ${check.name}${check.detail ? `: ${check.detail}` : ''}`
  })
  const failed = report.checks.filter((check) => !check.ok).length
  return [
    ...lines,
    failed === 0 ? `all ${lines.length} checks hold` : `${failed} of ${lines.length} checks failed`,
  ].join('\n')
}
