import { familyOf } from '@polygraft/architectures'
import { createDelta, readVocabularies, scaleDelta, type Vocabularies } from '@polygraft/delta'
import { type Checkpoint, ModelError, mergeSources, pipe, withoutAllowed } from '@polygraft/tensor'
import { compareConfigs } from './_config-check.js'
import { alignRows, denseDelta } from './_dense-delta.js'
import { withOrigin } from './_expansion.js'
import { createFiniteTally } from './_finite.js'
import { createFrozenTally } from './_frozen.js'
import { parameterCheck } from './_parameter-check.js'
import { pieceDeltas } from './_piece-deltas.js'
import { planSteps } from './_plan.js'
import { createProgress, equalBytes, readTile, tilesOf } from './_tiles.js'
import { countUngraft } from './_ungraft.js'
import { graft } from './graft.js'
import { recordedGraft } from './graft-step.js'
import { type GraftOptions, type PairSource, withoutAllowedIn } from './options.js'
import { type Check, checkOf, reportOf, type VerifyOptions, type VerifyReport } from './verify-report.js'

/** What a graft was made of. */
export interface GraftSources extends PairSource {
  readonly cpt: Checkpoint
}

/**
 * Checks a grafted checkpoint against its sources, tile by tile, with the settings that its recipe records (lambda 1 where
 * it records none). In the report:
 * - `tensors`: names, shapes and dtypes as a graft gives them; `config`, `files` alike;
 * - `parameters`: as many as the dense model, the experts and the routers make;
 * - `routers`: bit for bit cpt's, or cpt's folded;
 * - `graft`: every element equals the graft computed again, the first 65,536 of each tensor by the reference kernels;
 * - `finite`: no element is infinite or NaN;
 * - `frozen`: where cpt equals base bit for bit, the output equals post (apart from the sign of zero);
 * - `ungraft`: taking the delta off again returns cpt within 1 ulp of the largest operand, on samples.
 * Reads every input once, and the output once more for the samples.
 */
export async function verify(
  output: Checkpoint,
  sources: GraftSources,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  const vocabularies = options.vocabularies ?? (await readVocabularies({ ...sources }))
  try {
    const all = rebuildOptions(output, sources, vocabularies)
    const expected = graft(all)(sources.cpt)
    const { cpt, options: settings } = withoutAllowedIn(sources.cpt, all)
    const base = withoutAllowed(sources.base, all.allow ?? [])
    const from = { ...sources, base, cpt: withOrigin(cpt, settings) }
    return reportOf([
      structureCheck(output, expected),
      compareConfigs(output.config, expected.config, 'a graft'),
      await filesCheck(output, expected),
      parameterCheck(output, base),
      ...(await elementChecks(output, expected, from, settings, options)),
    ])
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    return reportOf([{ name: 'sources', ok: false, detail: `These cannot be grafted: ${error.message}` }])
  }
}

/** The options of the graft that `output` says it is; a stored delta is made again from base and post. */
function rebuildOptions(
  output: Checkpoint,
  { base, post }: GraftSources,
  vocabularies: Vocabularies,
): GraftOptions {
  const recorded = recordedGraft(output)
  const settings = { ...recorded?.settings, upcycled: output.provenance }
  const deltaRecipe = recorded?.deltaRecipe
  if (!deltaRecipe) return { ...settings, vocabularies, base, post }
  const plain = createDelta({ base, post, vocabularies, force: settings.force ?? false })
  const scales = deltaRecipe.flatMap(({ op, by }) =>
    op === 'scale' && typeof by === 'number' ? [scaleDelta(by)] : [],
  )
  return {
    ...settings,
    vocabularies: { ...vocabularies, delta: vocabularies.post },
    delta: pipe(plain, ...scales),
  }
}

function structureCheck(output: Checkpoint, expected: Checkpoint): Check {
  const describe = (checkpoint: Checkpoint, name: string) => {
    const tensor = checkpoint.tensors.get(name)
    return tensor ? `${tensor.dtype} [${tensor.shape}]` : 'nothing'
  }
  const names = new Set([...expected.tensors.keys(), ...output.tensors.keys()])
  const wrong = [...names]
    .filter((name) => describe(output, name) !== describe(expected, name))
    .map((name) => `${name} is ${describe(output, name)}, expected ${describe(expected, name)}`)
  return checkOf('tensors', wrong, `${names.size} tensors, all with the shape and dtype of a graft`)
}

async function filesCheck(output: Checkpoint, expected: Checkpoint): Promise<Check> {
  const wrong: string[] = []
  for (const [name, wanted] of expected.files) {
    const found = output.files.get(name)
    const bytes = async (source: typeof wanted) => new Uint8Array(await source.arrayBuffer())
    if (!found || found.size !== wanted.size || !equalBytes(await bytes(found), await bytes(wanted)))
      wrong.push(name)
  }
  return checkOf('files', wrong, `${expected.files.size} files, those that a graft carries`)
}

/** The checks that read weights. */
async function elementChecks(
  output: Checkpoint,
  expected: Checkpoint,
  from: GraftSources,
  settings: GraftOptions,
  options: VerifyOptions,
): Promise<Check[]> {
  const all = mergeSources(output, from.cpt, from.base, from.post)
  const progress = createProgress(output, options)
  const finite = createFiniteTally()
  const wrong: string[] = []
  const routers: string[] = []
  const notReversed: string[] = []
  let samples = 0
  const delta = denseDelta(settings)
  const deltas = delta.tensors(true)
  const frozen = createFrozenTally(deltas, settings, all)
  const isMoved = alignRows(from.cpt, settings).runs !== undefined
  for (const step of planSteps(from.cpt, delta, settings)) {
    const [have, want] = [output.tensors.get(step.name), expected.tensors.get(step.name)]
    // `structureCheck` has named what is not there or of another shape.
    if (!have || !want || have.dtype !== want.dtype || `${have.shape}` !== `${want.shape}`) continue
    const pieces = pieceDeltas(step, deltas)
    const moved = isMoved && (step.role.group === 'embedding' || step.role.group === 'head')
    let equal = true
    for (const tile of tilesOf(want)) {
      const found = await readTile(have, all, tile)
      if (!equalBytes(found, await readTile(want, all, tile))) equal = false
      if (!moved) await frozen.add(step, pieces, want, tile, found)
      finite.add(step.name, have.dtype, found)
      progress(found.length)
    }
    if (!equal) wrong.push(step.name)
    if (step.role.group === 'router') routers.push(step.name)
    const back = await countUngraft(have, step, moved ? [] : pieces, all)
    samples += back.samples
    if (back.wrong > 0) notReversed.push(`${step.name}: ${back.wrong} of ${back.samples}`)
  }
  const wrongRouters = wrong.filter((name) => routers.includes(name))
  const how = settings.foldRouter ? 'equal to those of cpt, folded by the norms' : 'bit for bit those of cpt'
  return [
    ...(familyOf(from.cpt.config).moe
      ? [checkOf('routers', wrongRouters, `${routers.length} routers, ${how}`)]
      : []),
    checkOf(
      'graft',
      wrong,
      `${expected.tensors.size} tensors, every element equal to the graft computed again`,
    ),
    finite.check(),
    frozen.check(),
    checkOf('ungraft', notReversed, `${samples} samples return to cpt within 1 ulp of the largest operand`),
  ]
}
