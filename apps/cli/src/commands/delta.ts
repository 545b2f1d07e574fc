import { createDelta, deltaProblems, readVocabularies } from '@polygraft/delta'
import type { Command } from 'commander'
import { CHECKPOINT_HELP, localPaths, openCheckpoints } from '../open.js'
import { createTerminal } from '../terminal.js'
import { runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions } from './_options.js'

interface Arguments extends WriteArguments {
  readonly json?: boolean
}

/** `polygraft delta <base> <post> -o <dir>` */
export function addDelta(program: Command): void {
  const command = program
    .command('delta')
    .description(
      'Write the task vector post - base in F32, with the id of its base, which a later use checks.',
    )
    .argument('<base>', CHECKPOINT_HELP)
    .argument('<post>', CHECKPOINT_HELP)
  addExample(addJson(addWriteOptions(command)), 'polygraft delta ./base ./instruct -o ./delta')
  command.action(run)
}

async function run(baseLocation: string, postLocation: string, args: Arguments): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const [base, post] = await openCheckpoints(baseLocation, postLocation)
  const options = {
    base,
    post,
    force: args.force ?? false,
    vocabularies: await readVocabularies({ base, post }),
  }
  await runJob(
    terminal,
    {
      label: 'delta',
      inputs: localPaths([baseLocation, postLocation]),
      problems: deltaProblems(options),
      warnings: [],
      build: () => createDelta(options),
    },
    args,
  )
}
