import { expectedTensors, familyOf } from '@polygraft/architectures'
import {
  createTeam,
  DEFAULT_MAX_SHARD_BYTES,
  DEFAULT_MEMORY_BYTES,
  type Team,
  writeCheckpoint,
} from '@polygraft/engine'
import { type Checkpoint, type JsonObject, ModelError, sourceIds, throwIfAny } from '@polygraft/tensor'
import { createFolder, fileSource, outputProblems } from '@polygraft/tensor-io/node'
import {
  createTrainer,
  decoderSpec,
  formatTrainingState,
  type GroupRate,
  loadValues,
  type RouterLosses,
  restoreTrainingState,
  runTraining,
  type Stage,
  type StepReport,
  selectTensors,
  type Trainer,
  trainedCheckpoint,
} from '@polygraft/train'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { version } from '../../package.json'
import { parseList, parseReal, parseWhole } from '../arguments.js'
import { modelThreads, modelThreadsOption } from '../model.js'
import { CHECKPOINT_HELP, localPaths, openCheckpoint } from '../open.js'
import { untilCancelled } from '../signals.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { type DataArgument, readTrainingData } from '../train-data.js'
import { openTrainFolder, type TrainFolder } from '../train-folder.js'
import { addExample, addJson } from './_options.js'

interface Arguments {
  readonly out: string
  readonly data: readonly DataArgument[]
  readonly mix?: ReadonlyMap<string, number>
  readonly original?: readonly string[]
  readonly steps: number
  readonly seed: number
  readonly rate: number
  readonly warmup: number
  readonly floor: number
  readonly clip: number
  readonly weightDecay: number
  readonly context: number
  readonly batchTokens: number
  readonly accumulation: number
  readonly cut?: boolean
  readonly train?: readonly string[]
  readonly freeze?: readonly string[]
  readonly rateOf?: readonly GroupRate[]
  readonly balance: number
  readonly z: number
  readonly lpr: number
  readonly lprForm: NonNullable<RouterLosses['lprForm']>
  readonly languageLoss: number
  readonly saveEvery: number
  readonly threads?: number
  readonly resume?: boolean
  readonly force?: boolean
  readonly json?: boolean
}

/** What a stage is when nothing else is said: the rates are those of small models. */
const STAGES: Readonly<
  Record<Stage, { help: string; rate: number; balance: number; lpr: number; example: string }>
> = {
  cpt: {
    help: 'Continue pre-training on text: of a mixture the new experts and the routers, of a dense model everything.',
    rate: 2e-3,
    balance: 0.01,
    lpr: 0,
    example: 'polygraft train cpt ./moe --data el=greek.txt --data hu=hungarian.jsonl --steps 600 -o ./cpt',
  },
  review: {
    help: 'Train the routers alone on a little text of all languages, with language priors routing (LPR).',
    rate: 1e-2,
    balance: 0,
    lpr: 0.1,
    example:
      'polygraft train review ./cpt --data en=english.txt --data el=greek.txt --original en --steps 100 -o ./moe',
  },
  sft: {
    help: 'Fine-tune on {"prompt", "answer"} lines: loss on the answers only. Lines with {"text"} are learnt whole.',
    rate: 4e-4,
    balance: 0,
    lpr: 0,
    example: 'polygraft train sft ./base --data en=instructions.jsonl --steps 800 -o ./instruct',
  },
}

/** `polygraft train cpt|review|sft <model> --data <language>=<file> --steps <n> -o <dir>` */
export function addTrain(program: Command): void {
  const train = program
    .command('train')
    .description('Train a small model; runs go on after a kill with --resume.')
  for (const stage of Object.keys(STAGES) as Stage[]) addStage(train, stage)
  for (const each of train.commands) each.copyInheritedSettings(train)
}

function addStage(train: Command, stage: Stage): void {
  const { help, rate, balance, lpr, example } = STAGES[stage]
  const real = (flags: string, text: string, value: number) =>
    new Option(flags, text).argParser(parseReal).default(value)
  const whole = (flags: string, text: string, least: number, value: number) =>
    new Option(flags, text).argParser(parseWhole(least)).default(value)
  const command = train
    .command(stage)
    .description(help)
    .argument('<model>', CHECKPOINT_HELP)
    .requiredOption(
      '--data <language=file>',
      'text or .jsonl in a language; once for each file',
      collect(parseData),
    )
    .addOption(new Option('--steps <n>', 'steps to train').argParser(parseWhole(1)).makeOptionMandatory())
    .requiredOption('-o, --out <dir>', 'folder to write; log and checkpoints go to <dir>.run')
    .addOption(whole('--seed <n>', 'seed of the order of documents', 0, 0))
    .option('--mix <language=share,...>', 'shares of the tokens (default: equal)', parseMix)
    .option(
      '--original <list>',
      'languages that the model had before (default: those without an expert)',
      parseList,
    )
    .addOption(real('--rate <x>', 'highest learning rate', rate))
    .addOption(whole('--warmup <n>', 'steps up to it', 0, 30))
    .addOption(real('--floor <x>', 'share of the rate that is left at the end of the cosine', 0.1))
    .addOption(real('--clip <x>', "bound on the gradients' common norm", 1))
    .addOption(real('--weight-decay <x>', 'of matrices', 0.05))
    .addOption(whole('--context <n>', 'most tokens of a document', 2, 512))
    .addOption(whole('--batch-tokens <n>', 'most tokens of a batch', 2, 1024))
    .addOption(whole('--accumulation <n>', 'batches a step', 1, 1))
    .option('--cut', 'cut texts longer than the context into several')
    .option(
      '--train <pattern>',
      'train these tensors and no others; * stands for any characters; may be repeated',
      collect(),
    )
    .option('--freeze <pattern>', 'leave these tensors as they are; may be repeated', collect())
    .option(
      '--rate-of <pattern=factor>',
      'a factor on the rate of some tensors; may be repeated',
      collect(parseGroupRate),
    )
    .addOption(real('--balance <x>', 'weight of the balance loss', balance))
    .addOption(real('--z <x>', "weight of the routers' z-loss", 0))
    .addOption(real('--lpr <x>', 'weight of language priors routing', lpr))
    .addOption(new Option('--lpr-form <form>', 'which LPR').choices(['exact', 'published']).default('exact'))
    .addOption(
      real('--language-loss <x>', "weight of the loss that sends tokens to their language's experts", 0),
    )
    .addOption(whole('--save-every <n>', 'steps from checkpoint to checkpoint', 1, 100))
    .addOption(modelThreadsOption())
    .option('--resume', 'go on with the run that was interrupted')
    .option('--force', 'replace an existing output and an earlier run')
  addExample(addJson(command), example)
  command.action((location: string, args: Arguments) => run(stage, location, args))
}

async function run(stage: Stage, location: string, args: Arguments): Promise<void> {
  const { out, force = false } = args
  const inputs = [...localPaths([location]), ...args.data.map(({ file }) => file)]
  throwIfAny(await outputProblems(out, { force, inputs }))
  const checkpoint = await openCheckpoint(location)
  const threads = args.threads ?? modelThreads(checkpoint)
  const team = threads > 1 ? await createTeam(threads) : undefined
  try {
    await trainOn(team, stage, checkpoint, args)
  } finally {
    await team?.close()
  }
}

async function trainOn(
  team: Team | undefined,
  stage: Stage,
  checkpoint: Checkpoint,
  args: Arguments,
): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const { out, resume = false, force = false } = args
  const { config } = checkpoint
  const spec = decoderSpec(config)
  const { train, freeze, rateOf } = args
  const trained = selectTensors(spec, stage, {
    ...(train ? { train } : {}),
    ...(freeze ? { freeze } : {}),
    ...(rateOf ? { rates: rateOf } : {}),
  })
  const data = await readTrainingData(checkpoint, args.data, {
    context: args.context,
    cut: args.cut ?? false,
    vocabularySize: spec.vocabularySize,
    mix: args.mix ?? new Map(),
    original: args.original,
  })
  const losses: RouterLosses = {
    balance: args.balance,
    z: args.z,
    lpr: args.lpr,
    lprForm: args.lprForm,
    language: args.languageLoss,
  }
  const recipe = recipeOf(stage, args, losses)
  const key = { ...recipe, model: sourceIds(checkpoint), data: data.digests }
  const shapes = expectedTensors(familyOf(config), config)
  const adam = { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: args.weightDecay }
  const trainer = createTrainer(spec, shapes, trained, { ...args, adam, losses, ...(team ? { team } : {}) })
  await loadValues(checkpoint, trainer.values)
  const folder = await openTrainFolder(out, key, { resume, force })
  const drawn = folder.state && (await restoreTrainingState(trainer, fileSource(folder.state), folder.state))
  if (drawn) terminal.note(`going on after step ${trainer.step} of ${args.steps}`)
  const current = () => trainedCheckpoint(checkpoint, trainedValues(trainer), recipe)
  const meter = createMeter(terminal, folder, args.steps)
  await untilCancelled((signal) =>
    runTraining(trainer, data.languages, {
      ...args,
      ...(drawn ? { drawn } : {}),
      async onStep(report, drawn) {
        await meter.step(report)
        const isLast = report.step === args.steps
        if (isLast || report.step % args.saveEvery === 0 || signal.aborted)
          await folder.save(await current(), report.step, formatTrainingState(trainer, drawn))
        if (signal.aborted && !isLast) throw cancelled(report.step, folder)
      },
    }),
  )
  await publish(await current(), out, force)
  const result = { ...meter.result(), steps: args.steps, out }
  terminal.result(
    result,
    () =>
      `wrote ${out}: ${args.steps} steps, loss ${result.firstLoss.toFixed(3)} -> ${result.finalLoss.toFixed(3)}, ${result.tokensPerSecond} tokens/s; log in ${folder.path}`,
  )
}

/** What the manifest records, and what a run that goes on must have as well. */
function recipeOf(stage: Stage, args: Arguments, losses: RouterLosses): JsonObject {
  const { data, mix, original, train, freeze, rateOf } = args
  const {
    steps,
    seed,
    rate,
    warmup,
    floor,
    clip,
    weightDecay,
    context,
    batchTokens,
    accumulation,
    cut = false,
  } = args
  return {
    op: 'train',
    stage,
    ...{ steps, seed, rate, warmup, floor, clip, weightDecay, context, batchTokens, accumulation, cut },
    losses: { ...losses } as JsonObject,
    languages: [...new Set(data.map(({ language }) => language))],
    ...(mix ? { mix: Object.fromEntries(mix) } : {}),
    ...(original ? { original } : {}),
    ...(train ? { train } : {}),
    ...(freeze ? { freeze } : {}),
    ...(rateOf ? { rates: rateOf.map(({ pattern, factor }) => ({ pattern, factor })) } : {}),
  }
}

function trainedValues({ values, first }: Trainer) {
  return new Map([...first.keys()].map((name) => [name, values.get(name)!]))
}

async function publish(checkpoint: Checkpoint, out: string, force: boolean): Promise<void> {
  const folder = await createFolder(out, { force })
  try {
    const limits = { maxShardBytes: DEFAULT_MAX_SHARD_BYTES, memoryBytes: DEFAULT_MEMORY_BYTES }
    await writeCheckpoint(checkpoint, folder, { ...limits, version })
    await folder.publish()
  } catch (error) {
    await folder.discard()
    throw error
  }
}

function cancelled(step: number, { path }: TrainFolder): ModelError {
  return new ModelError({
    code: 'cancelled',
    message: `Cancelled; step ${step} is kept`,
    file: path,
    next: 'The same command with --resume goes on from there.',
  })
}

const NOTE_INTERVAL_MS = 2000

/** Logs steps, and tells of them now and then. */
function createMeter(terminal: Terminal, folder: TrainFolder, steps: number) {
  let [tokens, elapsedMs, next] = [0, 0, 0]
  let [firstLoss, finalLoss] = [folder.firstLoss, folder.firstLoss ?? Number.NaN]
  let before = performance.now()
  return {
    async step(report: StepReport): Promise<void> {
      const now = performance.now()
      const stepMs = Math.max(1e-3, now - before)
      elapsedMs += stepMs
      tokens += report.tokens
      firstLoss ??= report.loss
      finalLoss = report.loss
      await folder.log({ ...report, tokensPerSecond: Math.round((report.tokens / stepMs) * 1000) })
      if (now >= next) {
        next = now + NOTE_INTERVAL_MS
        const left = Math.ceil(((steps - report.step) * stepMs) / 1000)
        terminal.note(
          `step ${report.step}/${steps}  loss ${report.loss.toFixed(3)}  rate ${report.rate.toExponential(1)}  norm ${report.gradientNorm.toFixed(2)}  ${Math.round((report.tokens / stepMs) * 1000)} tokens/s  ${left} s left`,
        )
      }
      before = performance.now()
    },
    result: () => ({
      firstLoss: firstLoss ?? finalLoss,
      finalLoss,
      tokensPerSecond: Math.round((tokens / Math.max(1e-3, elapsedMs)) * 1000),
    }),
  }
}

function collect<T = string>(parse: (text: string) => T = (text) => text as T) {
  return (text: string, earlier: readonly T[] = []) => [...earlier, parse(text)]
}

function parseData(text: string): DataArgument {
  const match = /^([^=]+)=(.+)$/.exec(text)
  if (!match) throw new InvalidArgumentError('Expected language=file, such as el=greek.txt.')
  return { language: match[1]!, file: match[2]! }
}

function parseMix(text: string): ReadonlyMap<string, number> {
  const pairs = parseList(text).map((item) => {
    const at = item.indexOf('=')
    const share = parseReal(item.slice(at + 1))
    if (at < 1 || !(share > 0)) throw new InvalidArgumentError('Expected language=share,..., shares above 0.')
    return [item.slice(0, at), share] as const
  })
  return new Map(pairs)
}

function parseGroupRate(text: string): GroupRate {
  const at = text.lastIndexOf('=')
  const factor = parseReal(text.slice(at + 1))
  if (at < 1 || factor < 0) throw new InvalidArgumentError('Expected pattern=factor, such as *gate.weight=5.')
  return { pattern: text.slice(0, at), factor }
}
