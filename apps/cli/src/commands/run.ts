import { checkInputStates, type ShardResult, shardsOfTask, writeShards } from '@polygraft/engine'
import { taskFolder } from '@polygraft/tensor-io/node'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { parseWhole } from '../arguments.js'
import { formatBytes, plural } from '../format.js'
import { openPlan } from '../plan.js'
import { untilCancelled } from '../signals.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

interface Arguments {
  readonly task: { readonly task: number; readonly tasks: number }
  readonly threads?: number
  readonly json?: boolean
}

/** `polygraft run <plan.json> --task i/n` */
export function addRun(program: Command): void {
  const command = program
    .command('run')
    .description(
      'Write one task of a saved plan: its shards and nothing else. Tasks run in any order, on any machine that sees the same files. A task that was cut short goes on with the shards that it had not finished, each from its start.',
    )
    .argument('<plan>', 'a file that --plan of a writing command saved')
    .addOption(
      new Option('--task <i/n>', 'which of how many tasks, from 1')
        .argParser(parseTask)
        .default({ task: 1, tasks: 1 }, '1/1'),
    )
    .addOption(
      new Option(
        '--threads <n>',
        'threads that compute (default: one for each core, as memory allows)',
      ).argParser(parseWhole(0)),
    )
  addExample(
    addJson(command),
    'polygraft graft ./moe-cpt -o ./out --base ./base --post ./instruct --plan plan.json',
    'polygraft run plan.json --task 1/4',
  )
  command.action(run)
}

async function run(path: string, args: Arguments): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const { task, tasks } = args.task
  const { file, checkpoint, plan } = await openPlan(path, args.threads)
  const selected = shardsOfTask(plan.shards.length, task, tasks)
  const folder = await taskFolder(file.out, file)
  const earlier = [...selected].filter((shard) => folder.notes.earlier.has(plan.shards[shard]!.file)).length
  const states = new Map(file.states)
  const write = async (shard: string, note: string) => {
    // Once handed in, a shard is not written again.
    checkInputStates(states)
    await folder.notes.write(shard, note)
  }
  const meter = terminal.progress(`task ${task}/${tasks}`)
  let results: readonly ShardResult[] = []
  try {
    results = await untilCancelled((signal) =>
      writeShards(
        checkpoint,
        plan,
        { ...folder, notes: { ...folder.notes, write } },
        {
          signal,
          onProgress: ({ bytesDone, bytesTotal }) => meter.update(bytesDone, bytesTotal),
        },
        selected,
      ),
    )
  } finally {
    meter.done()
    await folder.discard()
  }
  const shards = results.map(({ file, bytes, sha256 }) => ({ file, bytes, sha256 }))
  const bytes = shards.reduce((sum, shard) => sum + shard.bytes, 0)
  terminal.result(
    { plan: path, task, tasks, written: shards.length - earlier, earlier, shards },
    () =>
      `task ${task}/${tasks}: ${plural(shards.length, 'shard')}, ${formatBytes(bytes)}${earlier > 0 ? `, ${earlier} of them written before` : ''}`,
  )
}

/** `3/8` → task 3 of 8. */
function parseTask(text: string): Arguments['task'] {
  const match = /^(\d+)\/(\d+)$/.exec(text)
  const [task, tasks] = [Number(match?.[1]), Number(match?.[2])]
  if (!(task >= 1 && task <= tasks))
    throw new InvalidArgumentError('Expected i/n with i from 1 to n, such as 3/8.')
  return { task, tasks }
}
