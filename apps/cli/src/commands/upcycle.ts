import { measureStatistics } from '@polygraft/engine'
import { ROUTER_INITS, type RouterInit } from '@polygraft/routing'
import { type Allowed, type Checkpoint, ModelError, mergeSources } from '@polygraft/tensor'
import {
  dropTargets,
  type ExpertInit,
  type UpcycleOptions,
  upcycle,
  upcycleProblems,
  upcycleWarnings,
} from '@polygraft/upcycle'
import { type Command, Option } from 'commander'
import { parseIndices, parseList, parsePlaced, parseReal, parseWhole } from '../arguments.js'
import { type Device, deviceOption } from '../model.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoints } from '../open.js'
import { openRecipe, runRecipe } from '../recipe.js'
import {
  type ExpertTexts,
  isTextRouter,
  routersFromText,
  TEXT_ROUTERS,
  type TextRouter,
  textsByExpert,
} from '../router-from-text.js'
import { untilCancelled } from '../signals.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { readTexts, type TextArgument, textOption } from '../text-argument.js'
import { measureWith, runJob, type WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions, allowOption } from './_options.js'

// No stock config takes more.
const MAX_EXPERTS = 65536

interface Arguments extends WriteArguments {
  readonly config?: string
  readonly experts?: number
  readonly topK?: number
  readonly target: NonNullable<UpcycleOptions['target']>
  readonly router: RouterInit | TextRouter
  readonly text?: readonly TextArgument[]
  readonly textTokens: number
  readonly device: Device
  readonly languages?: readonly string[]
  readonly seed: number
  readonly expertNoise?: number
  readonly drop?: number
  readonly granularity: number
  readonly denseLayers?: readonly number[]
  readonly sharedExpert?: boolean
  readonly expertFrom?: ReadonlyMap<number, string>
  readonly others: NonNullable<UpcycleOptions['others']>
  readonly normTopkProb: boolean
  readonly allow?: readonly Allowed[]
  readonly json?: boolean
}

/** `polygraft upcycle <base> -o <dir>` */
export function addUpcycle(program: Command): void {
  const command = program
    .command('upcycle')
    .description(
      'Turn a dense checkpoint into a mixture of experts: each FFN becomes E copies, each layer gets a router.',
    )
    .argument('[base]', CHECKPOINT_HELP)
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
        .choices(['auto', 'mixtral', 'qwen2_moe', 'qwen3_moe', 'granitemoe'])
        .default('auto'),
    )
    .addOption(
      new Option('--router <init>', 'how routers are drawn, or means or lda to make them of --text')
        .choices([...ROUTER_INITS, ...TEXT_ROUTERS])
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
  addTexts(command)
  addKindsOfExperts(command)
  command.addOption(allowOption())
  addConfig(command)
  addExample(
    addJson(addWriteOptions(command)),
    'polygraft upcycle ./base -o ./moe --languages el,hu,tr --seed 0',
    'polygraft upcycle ./base -o ./moe --experts 8 --granularity 4 --target qwen2_moe --shared-expert --dense-layers 0,30-31',
    'polygraft upcycle ./base -o ./moe --experts 8 --drop 0.5',
    'polygraft upcycle ./base -o ./moe --languages el,hu --expert-from 1=./base-el --expert-from 2=./base-hu --others mean',
    'polygraft upcycle ./base -o ./moe --router means --text en=en.txt --text el=el.txt --text hu=hu.txt',
    'polygraft upcycle --config moe.yml -o ./moe',
  )
  command.action(run)
}

/** For routers that know their languages from the start. */
function addTexts(command: Command): void {
  command
    .addOption(
      textOption(
        "text or .jsonl of a language for --router; without --languages the first is expert 0's, and the others name experts",
      ),
    )
    .addOption(
      new Option('--text-tokens <n>', "tokens of each expert's text that are looked at")
        .argParser(parseWhole(1))
        .default(4096),
    )
    .addOption(deviceOption())
}

function addKindsOfExperts(command: Command): void {
  command
    .addOption(
      new Option(
        '--granularity <g>',
        'cut each expert into g parts, and let a token take g times as many: finer experts',
      )
        .argParser(parseWhole(1))
        .default(1),
    )
    .addOption(
      new Option(
        '--dense-layers <list>',
        'layers that keep their dense block: 0,1,30-31 (qwen targets)',
      ).argParser(parseIndices),
    )
    .option('--shared-expert', 'the dense block as an expert that every token takes besides (qwen2_moe)')
    .addOption(
      new Option(
        '--drop <rate>',
        'draw a share of the neurons of experts 1, 2, ... anew; reads the weights once more to measure them',
      )
        .argParser(parseReal)
        .conflicts('expertNoise'),
    )
    .addOption(
      new Option(
        '--expert-from <e=checkpoint>',
        'take expert e from another dense model; repeat it for more',
      ).argParser(parsePlaced),
    )
    .addOption(
      new Option('--others <which>', 'where all but the experts comes from: the base, or the mean of all')
        .choices(['base', 'mean'])
        .default('base'),
    )
}

/** A config says all that the other options would. */
function addConfig(command: Command): void {
  const others = command.options.map((option) => option.attributeName())
  command.addOption(
    new Option(
      '--config <file>',
      'a config of mergekit-moe, in place of <base> and all of these options',
    ).conflicts(others),
  )
}

async function runConfig(path: string, terminal: Terminal, args: Arguments): Promise<void> {
  const recipe = await openRecipe(path)
  if (recipe.dialect !== 'mergekit-moe')
    throw new ModelError({
      code: 'bad-recipe',
      message: 'This is no config of mergekit-moe',
      file: path,
      expected: 'base_model and experts',
      received: `a recipe for polygraft merge (${recipe.dialect})`,
      next: 'Give it to polygraft merge.',
    })
  await runRecipe(terminal, 'upcycle', recipe, path, args)
}

async function run(location: string | undefined, args: Arguments, command: Command): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  if ((location === undefined) === (args.config === undefined))
    command.error('error: give either <base> or --config <file>', { exitCode: 2 })
  if (location === undefined) await runConfig(args.config!, terminal, args)
  else await runOptions(location, terminal, args, command)
}

async function runOptions(
  location: string,
  terminal: Terminal,
  args: Arguments,
  command: Command,
): Promise<void> {
  const texts = await readExpertTexts(args, command)
  const labels = texts?.labels ?? args.languages
  if (args.experts === undefined && labels === undefined)
    command.error('error: give --experts <n> or --languages <list>', { exitCode: 2 })
  const { base, expertsFrom } = await openModels(location, args.expertFrom ?? new Map())
  const wanted: UpcycleOptions = {
    experts: args.experts ?? 1 + labels!.length,
    ...(args.topK === undefined ? {} : { topK: args.topK }),
    target: args.target,
    ...(isTextRouter(args.router) ? {} : { router: args.router }),
    seed: args.seed,
    normTopkProb: args.normTopkProb,
    expertInit: initOf(args),
    granularity: args.granularity,
    denseLayers: args.denseLayers ?? [],
    sharedExpert: args.sharedExpert ? 'derived' : 'placeholder',
    expertsFrom,
    others: args.others,
    ...(labels ? { languages: labels } : {}),
    ...(args.allow ? { allow: args.allow } : {}),
  }
  const problems = upcycleProblems(base, wanted)
  const options =
    problems.length > 0
      ? wanted
      : await withRouters(base, await measured(terminal, base, wanted, args), texts, terminal, args)
  await runJob(
    terminal,
    {
      label: 'upcycle',
      inputs: localPaths([location, ...(args.expertFrom?.values() ?? [])]),
      problems,
      warnings: upcycleWarnings(options),
      build: () => upcycle(options)(base),
    },
    args,
  )
}

/** What --router is to be made of; undefined where it is drawn. */
async function readExpertTexts(args: Arguments, command: Command): Promise<ExpertTexts | undefined> {
  const { router, text, languages, others } = args
  if (isTextRouter(router) !== (text !== undefined))
    command.error('error: --text goes with --router means or lda, and those with --text', { exitCode: 2 })
  if (text === undefined) return undefined
  if (others === 'mean')
    command.error('error: --router means and lda look at the base: they go with --others base', {
      exitCode: 2,
    })
  return textsByExpert(await readTexts(text), languages)
}

/** The options with routers that are made of text; a dry run, which reads no weights, leaves them as they are drawn. */
async function withRouters(
  base: Checkpoint,
  options: UpcycleOptions,
  texts: ExpertTexts | undefined,
  terminal: Terminal,
  { router, textTokens, threads, device, dryRun }: Arguments,
): Promise<UpcycleOptions> {
  if (texts === undefined || !isTextRouter(router) || dryRun) return options
  terminal.note('reading the texts with the base, for the routers')
  const routers = await untilCancelled((signal) =>
    routersFromText(base, texts, { kind: router, maxTokens: textTokens, threads, device, signal }),
  )
  return { ...options, router: routers }
}

/** The base and the models of experts; one that is named twice is opened once, and is one model. */
async function openModels(location: string, from: ReadonlyMap<number, string>) {
  const locations = [...new Set([location, ...from.values()])]
  const opened = await openCheckpoints(...locations)
  const modelAt = (place: string) => opened[locations.indexOf(place)]!
  return {
    base: modelAt(location),
    expertsFrom: new Map([...from].map(([expert, place]) => [expert, modelAt(place)])),
  }
}

function initOf({ drop, expertNoise }: Arguments): ExpertInit {
  if (drop !== undefined) return { kind: 'drop', rate: drop }
  return expertNoise === undefined ? { kind: 'copy' } : { kind: 'noise', std: expertNoise }
}

/** The options with what Drop-Upcycling must know of the entries that it replaces; a dry run reads no weights and makes it up. */
async function measured(
  terminal: Terminal,
  base: Checkpoint,
  options: UpcycleOptions,
  args: Arguments,
): Promise<UpcycleOptions> {
  const { expertInit, expertsFrom } = options
  if (expertInit?.kind !== 'drop') return options
  const targets = dropTargets(base, options)
  const sources = mergeSources(base, ...(expertsFrom?.values() ?? []))
  const statistics = args.dryRun
    ? new Map([...targets.keys()].map((key) => [key, MADE_UP]))
    : await measureWith(terminal, 'measure', args, targets.values(), (limits) =>
        measureStatistics(targets, sources, limits),
      )
  return { ...options, expertInit: { ...expertInit, statistics } }
}

const MADE_UP = { sum: 0, sumSquares: 1, nonFinite: 0 }
