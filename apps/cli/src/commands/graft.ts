import { readVocabularies } from '@polygraft/delta'
import { type GraftOptions, type GraftSettings, graft, graftProblems, graftWarnings } from '@polygraft/graft'
import type { Allowed, Checkpoint } from '@polygraft/tensor'
import { type Command, Option } from 'commander'
import { parseIndexed, parseReal } from '../arguments.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoint, openCheckpoints } from '../open.js'
import { createTerminal } from '../terminal.js'
import { runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions, allowOption } from './_options.js'

interface Arguments extends WriteArguments {
  readonly base?: string
  readonly post?: string
  readonly delta?: string
  readonly lambda: number
  readonly expertLambda?: ReadonlyMap<number, number>
  readonly layerLambda?: ReadonlyMap<number, number>
  readonly foldRouter?: boolean
  readonly upcycled?: string
  readonly sharedExpert?: NonNullable<GraftOptions['sharedExpert']>
  readonly allow?: readonly Allowed[]
  readonly json?: boolean
}

/** `polygraft graft <cpt> -o <dir> (--base <base> --post <post> | --delta <dir>)` */
export function addGraft(program: Command): void {
  const command = program
    .command('graft')
    .description(
      'Add the post-training delta to a continued-pre-trained checkpoint, expanded over its experts.',
    )
    .argument('<cpt>', CHECKPOINT_HELP)
    .option('--base <base>', 'the dense base that both others come from')
    .option('--post <post>', 'the post-trained (instruct) version of the base')
    .option('--delta <dir>', 'a delta written by `polygraft delta`, instead of --base and --post')
    .addOption(new Option('--lambda <x>', 'strength of the delta').argParser(parseReal).default(1))
    .addOption(
      new Option('--expert-lambda <e=x,...>', 'factors that multiply --lambda for single experts').argParser(
        parseIndexed,
      ),
    )
    .addOption(
      new Option('--layer-lambda <l=x,...>', 'factors that multiply --lambda for single layers').argParser(
        parseIndexed,
      ),
    )
    .option('--fold-router', 'rescale routers so that the moved norm weights leave their choices unchanged')
    .option(
      '--upcycled <dir>',
      'what cpt was trained from, where the trainer has not kept its polygraft.json: how experts were cut or drawn anew',
    )
    .addOption(
      new Option(
        '--shared-expert <what>',
        'what a shared expert is where no polygraft.json says it: the dense block, or zeros',
      ).choices(['derived', 'placeholder']),
    )
  addExample(
    addJson(addWriteOptions(command.addOption(allowOption()))),
    'polygraft graft ./moe-cpt -o ./moe-instruct --base ./base --post ./instruct',
    'polygraft graft ./moe-cpt -o ./moe-instruct --base ./base --post ./instruct --upcycled ./moe',
    'polygraft graft ./moe-cpt -o ./moe-instruct --delta ./delta --expert-lambda 0=1,1=0.8 --dry-run',
  )
  command.action(run)
}

async function run(location: string, args: Arguments, command: Command): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const pair = args.base !== undefined && args.post !== undefined
  if (args.delta === undefined ? !pair : args.base !== undefined || args.post !== undefined)
    command.error('error: give either --base and --post, or --delta', { exitCode: 2 })
  const common: GraftSettings = {
    lambda: args.lambda,
    foldRouter: args.foldRouter ?? false,
    force: args.force ?? false,
    ...(args.expertLambda ? { expertLambda: args.expertLambda } : {}),
    ...(args.layerLambda ? { layerLambda: args.layerLambda } : {}),
    ...(args.allow ? { allow: args.allow } : {}),
    ...(args.sharedExpert ? { sharedExpert: args.sharedExpert } : {}),
    ...(args.upcycled === undefined ? {} : { upcycled: (await openCheckpoint(args.upcycled)).provenance }),
  }
  const { cpt, options } = await openSources(location, args, common)
  await runJob(
    terminal,
    {
      label: 'graft',
      inputs: localPaths([location, args.base, args.post, args.delta, args.upcycled]),
      problems: graftProblems(cpt, options),
      warnings: graftWarnings(cpt, options),
      build: () => graft(options)(cpt),
    },
    args,
  )
}

async function openSources(
  location: string,
  args: Arguments,
  common: GraftSettings,
): Promise<{ cpt: Checkpoint; options: GraftOptions }> {
  if (args.delta !== undefined) {
    const [cpt, delta] = await openCheckpoints(location, args.delta)
    return { cpt, options: { ...common, delta, vocabularies: await readVocabularies({ post: delta, cpt }) } }
  }
  const [cpt, base, post] = await openCheckpoints(location, args.base!, args.post!)
  return {
    cpt,
    options: { ...common, base, post, vocabularies: await readVocabularies({ base, post, cpt }) },
  }
}
