import { familyOf, isSparseLayer, nameOf } from '@polygraft/architectures'
import { evaluate } from '@polygraft/engine'
import { createEvaluatedModel, type LayerRouting, layerDrift, measureRouting } from '@polygraft/evaluate'
import {
  alikeExperts,
  CONDITION_NUMBER_WARNING,
  conditionNumber,
  routerContrasts,
  summarizeLoad,
} from '@polygraft/routing'
import { type Checkpoint, ModelError } from '@polygraft/tensor'
import type { Command } from 'commander'
import { formatTable } from '../format.js'
import { type Device, deviceOption, modelThreadsOption, startModel } from '../model.js'
import { CHECKPOINT_HELP, openCheckpoint } from '../open.js'
import { untilCancelled } from '../signals.js'
import { createTerminal } from '../terminal.js'
import { readTexts, type TextArgument, textOption } from '../text-argument.js'
import { addExample, addJson } from './_options.js'

interface Arguments {
  readonly text: readonly TextArgument[]
  readonly before?: string
  readonly threads?: number
  readonly device: Device
  readonly json?: boolean
}

/** `polygraft route <moe>` */
export function addRoute(program: Command): void {
  const command = program
    .command('route')
    .description('Show which experts the tokens of each language take, layer by layer.')
    .argument('<moe>', CHECKPOINT_HELP)
    .addOption(textOption().makeOptionMandatory())
    .option(
      '--before <checkpoint>',
      'the mixture before its graft: tells how many tokens take other experts now',
    )
    .addOption(modelThreadsOption())
    .addOption(deviceOption())
  addExample(addJson(command), 'polygraft route ./grafted --text en=en.txt --text el=el.txt --before ./cpt')
  command.action(run)
}

type Traces = ReadonlyMap<string, readonly LayerRouting[]>

async function run(location: string, args: Arguments): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  const texts = await readTexts(args.text)
  const checkpoint = await openCheckpoint(location)
  const routers = await routersOf(checkpoint)
  for (const { layer, contrast, alike } of routers) {
    if (!(contrast <= CONDITION_NUMBER_WARNING))
      terminal.note(
        `warning: the differences between the rows of layer ${layer}'s router have condition number ${contrast.toPrecision(3)}`,
      )
    for (const [a, b] of alike)
      terminal.note(`warning: layer ${layer}'s router cannot tell experts ${a} and ${b} apart`)
  }
  const [traces, before] = await untilCancelled(async (signal) => [
    await trace(checkpoint, texts, args, signal),
    args.before ? await trace(await openCheckpoint(args.before), texts, args, signal) : undefined,
  ])
  const languages = Object.fromEntries(
    [...traces].map(([language, layers]) => [
      language,
      layers.map((each, i) => rowOf(each, before?.get(language)?.[i])),
    ]),
  )
  const { experts } = checkpoint.provenance
  terminal.result({ checkpoint: location, ...(experts ? { experts } : {}), routers, languages }, () =>
    describe(languages, experts),
  )
}

async function trace(
  checkpoint: Checkpoint,
  texts: ReadonlyMap<string, readonly string[]>,
  { threads, device }: Arguments,
  signal: AbortSignal,
): Promise<Traces> {
  const { model, tokenizer, endTokens, close } = await startModel(checkpoint, threads, device)
  try {
    const { encode } = createEvaluatedModel(model, tokenizer, endTokens)
    const traces = new Map<string, LayerRouting[]>()
    for (const [language, documents] of texts)
      traces.set(language, await measureRouting(model, documents.map(encode), signal))
    return traces
  } finally {
    await close()
  }
}

interface Router {
  readonly layer: number
  readonly condition: number
  /** Condition number of the differences between its rows. */
  readonly contrast: number
  readonly alike: readonly (readonly [number, number])[]
}

/** Each router's condition number, and the pairs of experts that it cannot tell apart. */
async function routersOf({ config, tensors, sources }: Checkpoint) {
  const family = familyOf(config)
  const routers: Router[] = []
  for (let layer = 0; layer < Number(config.num_hidden_layers); layer++) {
    if (!isSparseLayer(family, config, layer)) continue
    const tensor = tensors.get(nameOf(family, { group: 'router', layer }) ?? '')
    if (!tensor) continue
    const [experts, hidden] = tensor.shape as [number, number]
    const bytes = await evaluate({ ...tensor, dtype: 'F32' }, sources)
    const values = new Float32Array(bytes.slice().buffer)
    const alike = alikeExperts(values, experts, hidden)
    const differences = routerContrasts(values, experts, hidden)
    routers.push({
      layer,
      condition: conditionNumber(values, experts, hidden),
      // A vector that all rows share chooses nothing.
      contrast: experts > 1 ? conditionNumber(differences, experts - 1, hidden) : 1,
      alike,
    })
  }
  if (routers.length > 0) return routers
  throw new ModelError({
    code: 'no-mixture',
    message: 'The checkpoint has no mixture of experts, so nothing is routed',
    received: family.modelType,
    next: 'Make one with `polygraft upcycle`.',
  })
}

function rowOf(routing: LayerRouting, before: LayerRouting | undefined) {
  const drift = before ? { drift: layerDrift(before, routing) } : {}
  return { layer: routing.layer, ...summarizeLoad(routing.load), ...drift }
}

type Row = ReturnType<typeof rowOf>

function describe(
  languages: Readonly<Record<string, readonly Row[]>>,
  labels: readonly string[] | undefined,
): string {
  const percent = (value: number) => `${(100 * value).toFixed(1)} %`
  const all = Object.values(languages).flat()
  const hasDrift = all.some((row) => 'drift' in row)
  const experts = all[0]?.share.map((_, e) => (labels?.[e] ? `${e} ${labels[e]}` : `${e}`)) ?? []
  const head = ['language', 'layer', ...experts, 'entropy', 'takes 0', ...(hasDrift ? ['drift'] : [])]
  const rows = Object.entries(languages).flatMap(([language, layers]) =>
    layers.map((row) => [
      ...[language, `${row.layer}`, ...row.share.map(percent), row.entropy.toFixed(3), percent(row.expert0)],
      ...('drift' in row ? [percent(row.drift)] : []),
    ]),
  )
  return formatTable([head, ...rows])
}
