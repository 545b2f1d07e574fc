import type { Allowed } from '@polygraft/tensor'
import { expand, expandProblems } from '@polygraft/upcycle'
import { type Command, Option } from 'commander'
import { parseWhole } from '../arguments.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoint } from '../open.js'
import { createTerminal } from '../terminal.js'
import { runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions, allowOption } from './_options.js'

interface Arguments extends WriteArguments {
  readonly blocks: number
  readonly allow?: readonly Allowed[]
  readonly json?: boolean
}

/** `polygraft expand <base> -o <dir> --blocks <n>` */
export function addExpand(program: Command): void {
  const command = program
    .command('expand')
    .description(
      'Insert layers that add nothing until they are trained (LLaMA Pro): the dense counterpart of upcycling. ' +
        'A graft gives the delta to the original layers alone.',
    )
    .argument('<base>', CHECKPOINT_HELP)
    .addOption(
      new Option('--blocks <n>', 'layers to insert, evenly between those that there are')
        .argParser(parseWhole(1))
        .makeOptionMandatory(),
    )
  addExample(
    addJson(addWriteOptions(command.addOption(allowOption()))),
    'polygraft expand ./base -o ./deeper --blocks 8',
  )
  command.action(run)
}

async function run(location: string, args: Arguments): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const base = await openCheckpoint(location)
  const options = { blocks: args.blocks, ...(args.allow ? { allow: args.allow } : {}) }
  await runJob(
    terminal,
    {
      label: 'expand',
      inputs: localPaths([location]),
      problems: expandProblems(base, options),
      warnings: [],
      build: () => expand(options)(base),
    },
    args,
  )
}
