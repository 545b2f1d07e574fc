import { type UpcycleOptions, upcycle, upcycleProblems, upcycleWarnings } from '@polygraft/upcycle'
import { type Command, Option } from 'commander'
import { parseList, parseReal, parseWhole } from '../arguments.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoint } from '../open.js'
import { createTerminal } from '../terminal.js'
import { runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions } from './_options.js'

// No stock config takes more.
const MAX_EXPERTS = 65536

interface Arguments extends WriteArguments {
  readonly experts?: number
  readonly topK?: number
  readonly target: NonNullable<UpcycleOptions['target']>
  readonly router: NonNullable<UpcycleOptions['router']>
  readonly languages?: readonly string[]
  readonly seed: number
  readonly expertNoise?: number
  readonly normTopkProb: boolean
  readonly json?: boolean
}

/** `polygraft upcycle <base> -o <dir>` */
export function addUpcycle(program: Command): void {
  const command = program
    .command('upcycle')
    .description(
      'Turn a dense checkpoint into a mixture of experts: each FFN becomes E copies, each layer gets a router.',
    )
    .argument('<base>', CHECKPOINT_HELP)
    .addOption(
      new Option('--experts <n>', 'experts per layer (default: 1 + the number of languages)').argParser(
        parseWhole(1, MAX_EXPERTS),
      ),
    )
    .addOption(
      new Option('--top-k <n>', 'experts that each token takes (default: 2)').argParser(parseWhole(1)),
    )
    .addOption(
      new Option('--target <family>', 'family of the output')
        .choices(['auto', 'mixtral', 'qwen2_moe', 'qwen3_moe'])
        .default('auto'),
    )
    .addOption(
      new Option('--router <init>', 'how routers are drawn')
        .choices(['xavier', 'normal', 'orthogonal', 'uniform'])
        .default('xavier'),
    )
    .addOption(
      new Option('--languages <list>', 'labels of experts 1, 2, ...; expert 0 is the original').argParser(
        parseList,
      ),
    )
    .addOption(
      new Option('--expert-noise <std>', 'add normal noise to experts 1, 2, ...').argParser(parseReal),
    )
    .addOption(new Option('--seed <n>', 'seed of routers and noise').argParser(parseWhole(0)).default(0))
    .option('--no-norm-topk-prob', 'gate without renormalisation (qwen targets; no longer equal to the base)')
  addExample(
    addJson(addWriteOptions(command)),
    'polygraft upcycle ./base -o ./moe --languages el,hu,tr --seed 0',
  )
  command.action(run)
}

async function run(location: string, args: Arguments, command: Command): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  if (args.experts === undefined && args.languages === undefined)
    command.error('error: give --experts <n> or --languages <list>', { exitCode: 2 })
  const base = await openCheckpoint(location)
  const options: UpcycleOptions = {
    experts: args.experts ?? 1 + args.languages!.length,
    ...(args.topK === undefined ? {} : { topK: args.topK }),
    target: args.target,
    router: args.router,
    seed: args.seed,
    normTopkProb: args.normTopkProb,
    expertInit: args.expertNoise === undefined ? { kind: 'copy' } : { kind: 'noise', std: args.expertNoise },
    ...(args.languages ? { languages: args.languages } : {}),
  }
  const problems = upcycleProblems(base, options)
  await runJob(
    terminal,
    {
      label: 'upcycle',
      inputs: localPaths([location]),
      problems,
      warnings: upcycleWarnings(options),
      build: () => upcycle(options)(base),
    },
    args,
  )
}
