import { denseName, familyOf, moeConfig, roleOf } from '@polygraft/architectures'
import { effectiveTensors, isTied } from '@polygraft/delta'
import {
  type Checkpoint,
  type JsonObject,
  type JsonValue,
  ModelError,
  mergeSources,
  type Tensor,
} from '@polygraft/tensor'
import { compareConfigs } from './_config-check.js'
import { parameterCheck } from './_parameter-check.js'
import { createProgress, equalBytes, readTile, tilesOf } from './_tiles.js'
import { type Check, checkOf, reportOf, type VerifyOptions, type VerifyReport } from './verify-report.js'

/**
 * Checks an upcycled checkpoint against its dense base, tile by tile. In the report:
 * - `config`: as upcycling with the recorded options makes it;
 * - `experts`: every expert is the base's feed-forward block bit for bit (with noise by its recipe, expert 0 is);
 * - `others`: so is everything else that the base has;
 * - `routers`: none is zero, and no two experts have the same row;
 * - `parameters`: as many as the dense model, the experts and the routers make.
 */
export async function verifyUpcycle(
  output: Checkpoint,
  { base }: { readonly base: Checkpoint },
  options: VerifyOptions = {},
): Promise<VerifyReport> {
  try {
    const checks = await copyChecks(output, base, options)
    return reportOf([
      configCheck(output, base),
      ...checks,
      await routerCheck(output),
      parameterCheck(output, base),
    ])
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    return reportOf([{ name: 'sources', ok: false, detail: error.message }])
  }
}

/** Without a recipe the config says itself how many experts there are, and how many a token takes. */
function configCheck(output: Checkpoint, base: Checkpoint): Check {
  const step = output.provenance.recipe.findLast(({ op }) => op === 'upcycle')
  const { config } = output
  const number = (value: JsonValue | undefined) => (typeof value === 'number' ? value : Number.NaN)
  const expected = moeConfig(base.config, familyOf(config), {
    numExperts: number(step?.experts ?? config.num_experts ?? config.num_local_experts),
    topK: number(step?.topK ?? config.num_experts_per_tok),
    normTopkProb: step?.normTopkProb !== false,
  })
  return compareConfigs(config, expected, 'upcycling')
}

async function copyChecks(output: Checkpoint, base: Checkpoint, options: VerifyOptions): Promise<Check[]> {
  const [family, dense] = [familyOf(output.config), familyOf(base.config)]
  const originals = effectiveTensors(base, !isTied(output))
  const noisy = hasNoise(output)
  const sources = mergeSources(output, base)
  const progress = createProgress(output, options)
  const wrong = { experts: [] as string[], others: [] as string[] }
  const counts = { experts: 0, others: 0 }
  const left = new Set(originals.keys())
  for (const [name, tensor] of effectiveTensors(output, false)) {
    const { group, expert = 0 } = roleOf(family, name)
    const origin = denseName(family, dense, name)
    const original = origin === undefined ? undefined : originals.get(origin)
    if (origin !== undefined) left.delete(origin)
    if (origin === undefined || (noisy && expert > 0)) continue
    const kind = group === 'expert' ? 'experts' : 'others'
    counts[kind]++
    if (!original || !(await isCopy(tensor, original, sources, progress))) wrong[kind].push(name)
  }
  const which = noisy ? 'of expert 0 (the others have noise)' : 'of experts'
  return [
    checkOf('experts', wrong.experts, `${counts.experts} matrices ${which}, bit for bit those of base`),
    checkOf(
      'others',
      [...wrong.others, ...[...left].map((name) => `${name} of base is not there`)],
      `${counts.others} other tensors, bit for bit those of base`,
    ),
  ]
}

function hasNoise({ provenance }: Checkpoint): boolean {
  const init = provenance.recipe.findLast(({ op }) => op === 'upcycle')?.expertInit as JsonObject | undefined
  return init?.kind === 'noise'
}

async function isCopy(
  tensor: Tensor,
  original: Tensor,
  sources: Checkpoint['sources'],
  progress: (bytes: number) => void,
): Promise<boolean> {
  if (tensor.dtype !== original.dtype || `${tensor.shape}` !== `${original.shape}`) return false
  let equal = true
  for (const tile of tilesOf(tensor)) {
    const found = await readTile(tensor, sources, tile)
    if (!equalBytes(found, await readTile(original, sources, tile))) equal = false
    progress(found.length)
  }
  return equal
}

async function routerCheck(output: Checkpoint): Promise<Check> {
  const family = familyOf(output.config)
  const wrong: string[] = []
  let count = 0
  for (const [name, tensor] of output.tensors) {
    if (roleOf(family, name).group !== 'router') continue
    count++
    const bytes = await readTile(tensor, output.sources, {
      begin: 0,
      end: tensor.shape[0]! * tensor.shape[1]!,
    })
    const width = bytes.length / tensor.shape[0]!
    const rows = Array.from(
      { length: tensor.shape[0]! },
      (_, e) => `${bytes.subarray(e * width, (e + 1) * width)}`,
    )
    if (rows.some((row) => !/[1-9]/.test(row)) || new Set(rows).size < rows.length) wrong.push(name)
  }
  return checkOf('routers', wrong, `${count} routers, none with a zero row or two equal rows`)
}
