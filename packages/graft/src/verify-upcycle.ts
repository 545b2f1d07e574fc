import { configDifferences, moeConfig, type SharedExpert } from '@polygraft/architectures'
import { effectiveTensors, isTied } from '@polygraft/delta'
import {
  collapsedConfig,
  constant,
  deriveExpr,
  insertedFrom,
  type Layout,
  layoutOf,
  type Piece,
  piecesOf,
} from '@polygraft/experts'
import {
  type Allowed,
  type Checkpoint,
  type Expr,
  type JsonObject,
  type JsonValue,
  ModelError,
  mergeSources,
  numel,
  type StateDict,
  type Tensor,
  withoutAllowed,
} from '@polygraft/tensor'
import { compareConfigs } from './_config-check.js'
import { expansionOf } from './_expansion.js'
import { parameterCheck } from './_parameter-check.js'
import { routerCheck } from './_router-check.js'
import { createProgress, equalBytes, readTile, tilesOf } from './_tiles.js'
import { recordedAllow } from './graft-step.js'
import { type Check, checkOf, reportOf, type VerifyOptions, type VerifyReport } from './verify-report.js'

/** What an upcycled checkpoint was made of. */
export interface UpcycleSources {
  readonly base: Checkpoint
  /** By expert, where they came from other models. Those that are left out are not checked, and the report says so. */
  readonly expertsFrom?: ReadonlyMap<number, Checkpoint>
}

/**
 * Checks an upcycled or expanded checkpoint against its dense base, tile by tile. In the report:
 * - `config`: as upcycling with the recorded options makes it;
 * - `experts`: every expert is what the recipe makes of the base's feed-forward block, bit for bit: a copy, or a part of one, scaled,
 *   with noise, or drawn anew in part;
 * - `others`: so is everything else that the base has, and inserted layers copy it but for outputs of zero;
 * - `routers`: none is zero, and no two experts have the same row (but for the parts of one);
 * - `parameters`: as many as the dense model, the experts and the routers make.
 */
export async function verifyUpcycle(
  output: Checkpoint,
  sources: UpcycleSources,
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  try {
    const base = withoutAllowed(sources.base, allowedBy(output))
    const layout = layoutOf(output.config, base.config, expansionOf(output, base.config, {}))
    const checks = await derivationChecks(output, { ...sources, base }, layout, options)
    return reportOf([
      configCheck(output, base, layout),
      ...checks,
      ...(layout.family.moe ? [await routerCheck(output, layout.expansion.granularity)] : []),
      parameterCheck(output, base),
    ])
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    return reportOf([{ name: 'sources', ok: false, detail: error.message }])
  }
}

/** What upcycling or expanding left out on purpose. */
function allowedBy({ provenance }: Checkpoint): readonly Allowed[] {
  return provenance.recipe.flatMap((step) => (MAKERS.has(step.op) ? recordedAllow(step) : []))
}

const MAKERS: ReadonlySet<unknown> = new Set(['upcycle', 'expand', 'recipe'])

/** Without a recipe the config says itself how many experts there are, and how many a token takes. */
function configCheck(
  { config, provenance }: Checkpoint,
  base: Checkpoint,
  { family, expansion }: Layout,
): Check {
  const collapsed = collapsedConfig(config, { ...expansion, granularity: 1 })
  if (!family.moe) {
    const wrong = configDifferences(base.config, collapsed).map(({ message }) => message)
    return checkOf('config', wrong, 'but for the layers as that of base')
  }
  const step = provenance.recipe.findLast(({ op }) => op === 'upcycle')
  const number = (value: JsonValue | undefined) => (typeof value === 'number' ? value : Number.NaN)
  const { granularity } = expansion
  const expected = moeConfig({ ...base.config, ...layersOf(config, expansion) }, family, {
    numExperts: number(step?.experts ?? number(config.num_experts ?? config.num_local_experts) / granularity),
    topK: number(step?.topK ?? number(config.num_experts_per_tok) / granularity),
    normTopkProb: step?.normTopkProb !== false,
    granularity,
    denseLayers: (step?.denseLayers ?? []) as readonly number[],
    sharedExpert: expansion.sharedExpert satisfies SharedExpert,
  })
  return compareConfigs(config, expected, 'upcycling')
}

/** Fields of an expanded base that its own config does not have. */
function layersOf(
  { num_hidden_layers, layer_types }: JsonObject,
  { layers }: Layout['expansion'],
): JsonObject {
  if (!layers) return {}
  return { num_hidden_layers: num_hidden_layers!, ...(layer_types ? { layer_types } : {}) }
}

/** What a tensor should be, or that nothing given tells. */
type Expected = Tensor | 'unknown'

async function derivationChecks(
  output: Checkpoint,
  { base, expertsFrom }: UpcycleSources,
  layout: Layout,
  options: VerifyOptions,
): Promise<Check[]> {
  const originals = effectiveTensors(base, !isTied(output))
  const models = [...(expertsFrom?.values() ?? [])]
  const sources = mergeSources(output, base, ...models)
  const progress = createProgress(output, options)
  const wrong = { experts: [] as string[], others: [] as string[] }
  const counts = { experts: 0, others: 0 }
  let unknown = 0
  const left = new Set(originals.keys())
  for (const [name, tensor] of effectiveTensors(output, false)) {
    const pieces = piecesOf(layout, name)
    for (const { dense } of pieces) left.delete(dense)
    const expected = pieces.length
      ? derivedTensor(tensor, layout, pieces, originals, expertsFrom ?? new Map())
      : insertedTensor(tensor, layout, name, originals)
    if (expected === undefined) continue
    if (expected === 'unknown') {
      unknown++
      continue
    }
    const kind = pieces.some(({ copy }) => copy !== undefined) ? 'experts' : 'others'
    counts[kind]++
    if (!(await isEqual(tensor, expected, sources, progress))) wrong[kind].push(name)
  }
  const rest = unknown > 0 ? `; ${unknown} come from models that were not given` : ''
  const lost = [...left].map((name) => `${name} of base is not there`)
  return [
    ...(layout.family.moe
      ? [checkOf('experts', wrong.experts, `${counts.experts} ${expertsAre(layout)}${rest}`)]
      : []),
    checkOf(
      'others',
      [...wrong.others, ...lost],
      `${counts.others} other tensors, bit for bit those of base`,
    ),
  ]
}

function expertsAre({ expansion }: Layout): string {
  const { granularity, noise, drop, sharedExpert } = expansion
  const isPlain = granularity === 1 && !noise && !drop && sharedExpert === 'placeholder'
  return isPlain
    ? 'matrices of experts, bit for bit those of base'
    : "matrices of experts, bit for bit what the recipe makes of base's"
}

/** What the recipe makes of the dense tensors; undefined where one of them is missing. */
function derivedTensor(
  tensor: Tensor,
  layout: Layout,
  pieces: readonly Piece[],
  originals: StateDict,
  models: ReadonlyMap<number, Checkpoint>,
): Expected {
  const { foreign, mean } = layout.expansion
  const found = pieces.map((piece) => {
    if (piece.copy === undefined) return mean ? undefined : originals.get(piece.dense)
    if (!foreign.includes(piece.copy)) return originals.get(piece.dense)
    return models.get(piece.copy)?.tensors.get(piece.dense)
  })
  if (found.some((each) => each === undefined)) return isForeign(layout, pieces) ? 'unknown' : NOTHING
  const exprs = pieces.map((piece, i) => deriveExpr(layout, piece, found[i]!.expr))
  if (exprs.length === 1)
    return { ...originals.get(pieces[0]!.dense)!, ...shapeOf(pieces[0]!, found[0]!), expr: exprs[0]! }
  const sizes = pieces.map(({ parts }, i) => numel(found[i]!.shape) / parts)
  return { dtype: found[0]!.dtype, shape: tensor.shape, expr: { op: 'concat', args: exprs, sizes } }
}

/** Equal to no tensor. */
const NOTHING: Tensor = { dtype: 'F32', shape: [0], expr: constant(0, 0) }

function isForeign({ expansion }: Layout, pieces: readonly Piece[]): boolean {
  return pieces.some(({ copy }) => (copy === undefined ? expansion.mean : expansion.foreign.includes(copy)))
}

/** A piece's shape: its share of the dense one. */
function shapeOf({ parts, matrix }: Piece, { shape }: Tensor): Pick<Tensor, 'shape'> {
  const [rows, columns] = shape as [number, number]
  if (!matrix) return { shape }
  return { shape: matrix.neurons === 'rows' ? [rows / parts, columns] : [rows, columns / parts] }
}

/** A tensor of an inserted layer; undefined for what is in none. */
function insertedTensor(
  tensor: Tensor,
  layout: Layout,
  name: string,
  originals: StateDict,
): Expected | undefined {
  const from = insertedFrom(layout, name)
  const original = from && originals.get(from.dense)
  if (!from || !original) return undefined
  const zeros: Expr = constant(0, numel(tensor.shape))
  return from.isZero ? { ...original, expr: zeros } : original
}

async function isEqual(
  tensor: Tensor,
  expected: Tensor,
  sources: Checkpoint['sources'],
  progress: (bytes: number) => void,
): Promise<boolean> {
  if (tensor.dtype !== expected.dtype || `${tensor.shape}` !== `${expected.shape}`) return false
  let equal = true
  for (const tile of tilesOf(tensor)) {
    const found = await readTile(tensor, sources, tile)
    if (!equalBytes(found, await readTile(expected, sources, tile))) equal = false
    progress(found.length)
  }
  return equal
}
