import { checkInputStates, digestFile, type Plan, writeRest, writeShards } from '@polygraft/engine'
import { type Problem, throwIfAny } from '@polygraft/tensor'
import { type ResumableFolder, resumeFolder } from '@polygraft/tensor-io/node'
import type { Command } from 'commander'
import { version } from '../../package.json'
import { type NonFinitePolicy, nonFiniteOption, refuseNonFinite } from '../non-finite.js'
import { openPlan } from '../plan.js'
import { untilCancelled } from '../signals.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { describeWritten, summary } from '../write.js'
import { addExample, addJson } from './_options.js'

/** `polygraft finish <plan.json>` */
export function addFinish(program: Command): void {
  const command = program
    .command('finish')
    .description(
      'Check every shard of a saved plan by its digest, write the rest of the checkpoint and publish it.',
    )
    .argument('<plan>', 'the file whose tasks have run')
    .addOption(nonFiniteOption())
  addExample(addJson(command), 'polygraft finish plan.json')
  command.action(run)
}

async function run(
  path: string,
  args: { readonly json?: boolean; readonly nonFinite: NonFinitePolicy },
): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const started = performance.now()
  const { file, checkpoint, plan } = await openPlan(path, 0)
  const inputs = file.sources.map(({ opened }) => opened)
  const folder = await resumeFolder(file.out, { key: file.key, force: file.force, inputs, gathered: true })
  try {
    throwIfAny(missingShards(plan, folder, path))
    const manifest = await untilCancelled(async (signal) => {
      const results = await writeShards(checkpoint, plan, folder, { signal })
      throwIfAny(await damagedShards(terminal, results, folder, path, signal))
      return writeRest(checkpoint, plan, folder, results, version)
    })
    refuseNonFinite(manifest, args.nonFinite)
    checkInputStates(new Map(file.states))
    await folder.publish()
    const elapsedMs = Math.round(performance.now() - started)
    terminal.result({ out: file.out, elapsedMs, ...summary(plan), ...manifest }, () =>
      describeWritten(file.out, plan, manifest, elapsedMs, args.nonFinite),
    )
  } catch (error) {
    await folder.leave()
    throw error
  }
}

function missingShards(plan: Plan, { notes }: ResumableFolder, path: string): Problem[] {
  return plan.shards
    .map(({ file }, shard) => ({
      code: 'unfinished',
      message: `Shard ${shard + 1} of ${plan.shards.length} is not written yet`,
      file,
      next: `Run its task, or all that is missing with: polygraft run ${path}`,
    }))
    .filter(({ file }) => !notes.earlier.has(file))
}

type Results = Awaited<ReturnType<typeof writeShards>>

async function damagedShards(
  terminal: Terminal,
  results: Results,
  folder: ResumableFolder,
  path: string,
  signal: AbortSignal,
): Promise<Problem[]> {
  const total = results.reduce((sum, { bytes }) => sum + bytes, 0)
  const meter = terminal.progress('check')
  const problems: Problem[] = []
  let done = 0
  for (const { file, bytes, sha256 } of results) {
    const source = await folder.read(file)
    const count = (read: number) => {
      done += read
      meter.update(done, total)
    }
    const received = await digestFile(source, count, signal)
    if (source.size !== bytes || received !== sha256)
      problems.push({
        code: 'damaged-shard',
        message: 'A shard is not what its task wrote',
        file,
        expected: `${bytes} bytes with SHA-256 ${sha256}`,
        received: `${source.size} bytes with SHA-256 ${received}`,
        next: `Remove it from ${folder.path} and run its task of ${path} again.`,
      })
  }
  meter.done()
  return problems
}
