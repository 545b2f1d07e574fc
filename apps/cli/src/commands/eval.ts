import { readFile, writeFile } from 'node:fs/promises'
import { basename, extname } from 'node:path'
import {
  createEvaluatedModel,
  createLanguageClassifier,
  type EvaluatedModel,
  type Evaluation,
  formatReport,
  type ItemResult,
  languageFidelity,
  measurePerplexity,
  measureRouting,
  measureTasks,
  parseTasks,
  type RoutingShare,
  retentionOf,
  sharesByLayer,
  summarizeTasks,
  type TaskItem,
} from '@polygraft/evaluate'
import type { Model } from '@polygraft/model'
import { ModelError } from '@polygraft/tensor'
import { fsError } from '@polygraft/tensor-io/node'
import { type Command, Option } from 'commander'
import { parseWhole } from '../arguments.js'
import { formatTable } from '../format.js'
import { deltaNorms } from '../measure-diff.js'
import { type Device, deviceOption, modelThreadsOption, startModel } from '../model.js'
import { CHECKPOINT_HELP, openCheckpoint, openCheckpoints } from '../open.js'
import { untilCancelled } from '../signals.js'
import { createTerminal, type Terminal } from '../terminal.js'
import { readTexts, type TextArgument, textOption } from '../text-argument.js'
import { addExample, addJson } from './_options.js'

interface Arguments {
  readonly text?: readonly TextArgument[]
  readonly tasks?: readonly string[]
  readonly reference?: string
  readonly base?: string
  readonly report?: string
  readonly maxNewTokens: number
  readonly threads?: number
  readonly device: Device
  readonly json?: boolean
}

/** What checkpoints are asked: documents by language, and task items. */
interface Questions {
  readonly texts: ReadonlyMap<string, readonly string[]>
  readonly items: readonly TaskItem[]
}

/** `polygraft eval <checkpoint>` */
export function addEval(program: Command): void {
  const command = program
    .command('eval')
    .description('Measure what a checkpoint knows: perplexity by language, tasks, language of the answers.')
    .argument('<checkpoint>', CHECKPOINT_HELP)
    .addOption(textOption())
    .option('--tasks <file...>', 'task items, one JSON object on a line, as lm-evaluation-harness has them')
    .option(
      '--reference <checkpoint>',
      'measure this one too, such as the instruct model, and what is kept of it',
    )
    .option(
      '--base <checkpoint>',
      'what --reference was trained from: the report shows how far each layer moved',
    )
    .option(
      '--report <file>',
      'write an HTML page with tables and plots, of a mixture also which experts each language takes',
    )
    .addOption(
      new Option('--max-new-tokens <n>', 'that an answer may have').argParser(parseWhole(1)).default(64),
    )
    .addOption(modelThreadsOption())
    .addOption(deviceOption())
  addExample(
    addJson(command),
    'polygraft eval ./grafted --text en=en.txt --text el=el.txt --tasks mgsm-el.jsonl --reference ./instruct --base ./base --report report.html',
  )
  command.action(run)
}

async function run(location: string, args: Arguments, command: Command): Promise<void> {
  if (args.base !== undefined && (args.reference === undefined || args.report === undefined))
    command.error('error: --base goes with --reference and --report', { exitCode: 2 })
  const questions = await readQuestions(args)
  const terminal = createTerminal(args.json ?? false)
  const measured = await untilCancelled(async (signal) => {
    const all: Measured[] = []
    for (const each of [location, ...(args.reference ? [args.reference] : [])]) {
      terminal.note(`measuring ${each}`)
      all.push(await measure(each, questions, args, signal))
    }
    return all
  })
  const evaluations = measured.map(({ evaluation }) => evaluation)
  const [own, reference] = evaluations as [Evaluation, Evaluation | undefined]
  if (args.report) await writeReport(args.report, location, measured, terminal, args)
  const retention = reference ? { reference, retention: retentions(own, reference) } : {}
  terminal.result({ ...own, ...retention }, () => describe(evaluations))
}

async function readQuestions({ text = [], tasks = [] }: Arguments): Promise<Questions> {
  if (text.length + tasks.length === 0)
    throw new ModelError({
      code: 'no-text',
      message: 'There is nothing to measure',
      next: 'Give --text or --tasks.',
    })
  const texts = await readTexts(text)
  const items: TaskItem[] = []
  for (const path of tasks)
    items.push(...parseTasks(await readFile(path, 'utf8'), path, basename(path, extname(path))))
  return { texts, items }
}

/** The page; the heat maps are those of the checkpoint itself, which comes first. */
async function writeReport(
  path: string,
  location: string,
  measured: readonly Measured[],
  terminal: Terminal,
  { base, reference }: Arguments,
): Promise<void> {
  const { experts, routing } = measured[0]!
  const deltas =
    base !== undefined && reference !== undefined
      ? await deltaNorms(terminal, ...(await openCheckpoints(base, reference)))
      : []
  const page = await formatReport({
    title: `Evaluation of ${location}`,
    evaluations: measured.map(({ evaluation }) => evaluation),
    ...(experts ? { experts } : {}),
    routing,
    deltas,
  })
  await writeFile(path, page).catch((error) => {
    throw fsError(error, 'The report cannot be written', path)
  })
}

/** What is measured of a checkpoint, and what only a report shows. */
interface Measured {
  readonly evaluation: Evaluation
  readonly experts: readonly string[] | undefined
  readonly routing: readonly RoutingShare[]
}

async function measure(
  location: string,
  { texts, items }: Questions,
  { threads, device, maxNewTokens, report }: Arguments,
  signal: AbortSignal,
): Promise<Measured> {
  const checkpoint = await openCheckpoint(location)
  const running = await startModel(checkpoint, threads, device)
  try {
    const model = createEvaluatedModel(running.model, running.tokenizer, running.endTokens)
    const languages: Record<string, Evaluation['languages'][string]> = {}
    for (const [language, documents] of texts)
      languages[language] = await measurePerplexity(model, documents, { signal })
    const results = await measureTasks(model, items, { signal, maxNewTokens })
    const fidelity = fidelityOf(results, texts)
    const common = { checkpoint: location, languages, tasks: summarizeTasks(results) }
    return {
      evaluation: fidelity ? { ...common, fidelity } : common,
      experts: checkpoint.provenance.experts,
      routing: report === undefined ? [] : await routingShares(running.model, model, texts, signal),
    }
  } finally {
    await running.close()
  }
}

/** Each expert's share of the choices by language and layer; nothing of a dense model. */
async function routingShares(
  model: Model,
  { encode }: EvaluatedModel,
  texts: Questions['texts'],
  signal: AbortSignal,
): Promise<RoutingShare[]> {
  const shares: RoutingShare[] = []
  for (const [language, documents] of texts) {
    const layers = await measureRouting(model, documents.map(encode), signal)
    if (layers.length === 0) continue
    shares.push({ language, layers: sharesByLayer(layers, model.dimensions.numLayers) })
  }
  return shares
}

/** Languages are told apart by the texts: of two or more, and for items that name theirs. */
function fidelityOf(
  results: readonly ItemResult[],
  texts: Questions['texts'],
): Evaluation['fidelity'] | undefined {
  if (texts.size < 2 || results.every(({ item }) => item.language === undefined)) return undefined
  const samples = [...texts].map(([language, documents]) => [language, documents.join('\n')] as const)
  return languageFidelity(results, createLanguageClassifier(new Map(samples)))
}

function retentions({ tasks }: Evaluation, { tasks: reference }: Evaluation) {
  const pairs = Object.entries(tasks).map(([name, own]) => [name, retentionOf(own, reference[name]!)])
  return Object.fromEntries(pairs)
}

function describe(evaluations: readonly Evaluation[]): string {
  const head = (name: string) => [name, ...evaluations.map(({ checkpoint }) => checkpoint)]
  const rowsOf = <T>(pick: (each: Evaluation) => Readonly<Record<string, T>>, show: (value: T) => string) =>
    Object.keys(pick(evaluations[0]!)).map((name) => [
      name,
      ...evaluations.map((each) => show(pick(each)[name]!)),
    ])
  const share = ({ accuracy, stderr, n }: { accuracy: number; stderr: number; n: number }) =>
    `${(accuracy * 100).toFixed(1)} % ± ${(stderr * 100).toFixed(1)} (${n})`
  const tables = [
    [
      head('perplexity'),
      ...rowsOf(
        ({ languages }) => languages,
        ({ perplexity }) => perplexity.toFixed(3),
      ),
    ],
    [head('accuracy'), ...rowsOf(({ tasks }) => tasks, share)],
    [head('in its language'), ...rowsOf(({ fidelity = {} }) => fidelity, share)],
  ]
  return tables
    .filter(({ length }) => length > 1)
    .map((rows) => formatTable(rows))
    .join('\n\n')
}
