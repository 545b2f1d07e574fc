import {
  type AdapterOptions,
  adapterProblems,
  adapterWarnings,
  applyAdapter,
  doraTargets,
  readAdapter,
} from '@polygraft/delta'
import { measureRowNorms } from '@polygraft/engine'
import { type Checkpoint, mergeSources, pipe } from '@polygraft/tensor'
import { type Command, Option } from 'commander'
import { parseReal } from '../arguments.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoints } from '../open.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { measureWith, runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions } from './_options.js'

interface Arguments extends WriteArguments {
  readonly scale: number
  readonly json?: boolean
}

/** `polygraft lora apply <base> <adapter> -o <dir>` */
export function addLoraApply(parent: Command): void {
  const command = parent
    .command('apply')
    .description('Merge a LoRA adapter that peft saved into its base: W + scale * alpha / rank * B A.')
    .argument('<base>', CHECKPOINT_HELP)
    .argument('<adapter>', 'a folder with adapter_config.json and adapter_model.safetensors')
    .addOption(
      new Option('--scale <x>', "multiplies the adapter's own alpha / rank").argParser(parseReal).default(1),
    )
  addExample(
    addJson(addWriteOptions(command)),
    'polygraft lora apply ./base ./adapter -o ./merged',
    'polygraft lora apply ./base ./adapter -o ./merged --scale 0.5 --dry-run',
  )
  command.action(run)
}

async function run(location: string, adapterLocation: string, args: Arguments): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const [base, opened] = await openCheckpoints(location, adapterLocation)
  const options = { adapter: await readAdapter(opened), scale: args.scale }
  const problems = adapterProblems(base, options)
  const norms = problems.length > 0 ? new Map() : await normsOf(terminal, base, options, args)
  await runJob(
    terminal,
    {
      label: 'lora',
      inputs: localPaths([location, adapterLocation]),
      problems,
      warnings: problems.length > 0 ? [] : adapterWarnings(base, options),
      build: () => pipe(base, applyAdapter({ ...options, norms })),
    },
    args,
  )
}

/** What DoRA divides by; a dry run takes ones. */
async function normsOf(
  terminal: Terminal,
  base: Checkpoint,
  options: AdapterOptions,
  args: Arguments,
): Promise<ReadonlyMap<string, Float32Array>> {
  const targets = doraTargets(base, options)
  if (args.dryRun)
    return new Map([...targets].map(([name, { shape }]) => [name, new Float32Array(shape[0]!).fill(1)]))
  const sources = mergeSources(base, options.adapter.checkpoint)
  return measureWith(terminal, 'norms', args, targets.values(), (measuring) =>
    measureRowNorms(targets, sources, measuring),
  )
}
