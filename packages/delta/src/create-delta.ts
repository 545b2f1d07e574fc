import { configDifferences } from '@polygraft/architectures'
import {
  type Checkpoint,
  type Expr,
  isFloat,
  mergeSources,
  type Problem,
  type RowRuns,
  sourceIds,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { alignVocabularies, type RowAlignment } from './align-vocabularies.js'
import { assembleRows, gatherRows } from './assemble-rows.js'
import { deltaStep } from './delta-step.js'
import {
  effectiveTensors,
  isTied,
  isVocabularyTensor,
  knownFamily,
  skippedTensors,
  storedExpr,
} from './effective-tensors.js'
import { missingTensor, notFloat, shapeMismatch } from './problems.js'
import type { Vocabularies } from './vocabulary.js'

export interface DeltaOptions {
  readonly base: Checkpoint
  readonly post: Checkpoint
  /** From `readVocabularies`. Without them rows go together by id, which needs equal row counts. */
  readonly vocabularies?: Vocabularies
  /** Go on although the configs differ. */
  readonly force?: boolean
}

/**
 * Task vector: delta = theta_post - theta_base (Ilharco et al., arXiv:2212.04089, section 2), as F32 expressions under
 * post's names. Nothing is read. Config and other files are post's, so that a graft can carry its tokenizer.
 *
 * Tied embeddings count once. Where only one of the two is tied, the delta has both tensors, the tied one's embedding
 * standing for its head. Rows of embedding and head are aligned by token string, in post's ids; rows that are no
 * difference (a token, or padding, that base does not have) hold post's own row, and the recipe step lists them.
 * @throws ModelError with every one of `deltaProblems`.
 */
export function createDelta(options: DeltaOptions): Checkpoint {
  throwIfAny(deltaProblems(options))
  const { base, post } = options
  const tied = isTied(base) && isTied(post)
  const before = effectiveTensors(base, !tied)
  const rows = alignPair(options)
  const tensors = new Map<string, Tensor>()
  for (const [name, tensor] of effectiveTensors(post, !tied)) {
    const from = { post: storedExpr(tensor, post), base: storedExpr(before.get(name)!, base) }
    const aligned = isVocabularyTensor(knownFamily(post), name) && rows?.runs ? rows : undefined
    const expr = aligned
      ? alignedDelta(from, tensor.shape, rowsOf(before.get(name)), aligned)
      : difference(from)
    tensors.set(name, { dtype: 'F32', shape: tensor.shape, expr })
  }
  const copied: RowRuns = rows?.runs ? [...rows.runs.post, ...rows.runs.cpt] : []
  const inputs = { base: sourceIds(base), post: sourceIds(post) }
  return {
    ...(post.floatFields ? { floatFields: post.floatFields } : {}),
    config: tied || !isTied(post) ? post.config : { ...post.config, tie_word_embeddings: false },
    tensors,
    files: post.files,
    sources: mergeSources(base, post),
    provenance: { recipe: [deltaStep(inputs, rows?.by ?? 'id', copied)], skipped: skippedTensors(post) },
  }
}

/** Everything that keeps `base` and `post` from making a delta: `pairProblems`, and their vocabularies'. */
export function deltaProblems(options: DeltaOptions): Problem[] {
  return [...pairProblems(options), ...(alignPair(options)?.problems ?? [])]
}

/**
 * What disagrees between base and post apart from their vocabularies: configs (unless forced), tensors that one lacks,
 * shapes (of vocabulary tensors only the width), tensors that are no floats. All of it.
 */
export function pairProblems({ base, post, force = false }: DeltaOptions): Problem[] {
  const untied = !(isTied(base) && isTied(post))
  const before = effectiveTensors(base, untied)
  const after = effectiveTensors(post, untied)
  const guarded = !force && knownFamily(base) && knownFamily(post)
  return [
    ...(guarded ? configDifferences(base.config, post.config) : []),
    ...[...after].flatMap(([name, tensor]) =>
      tensorProblems(name, before.get(name), tensor, isAligned(post, name)),
    ),
    ...[...before.keys()]
      .filter((name) => !after.has(name))
      .map((name) => missingTensor(name, 'base', 'post')),
  ]
}

function isAligned(post: Checkpoint, name: string): boolean {
  return isVocabularyTensor(knownFamily(post), name)
}

function tensorProblems(name: string, base: Tensor | undefined, post: Tensor, aligned: boolean): Problem[] {
  if (!base) return [missingTensor(name, 'post', 'base')]
  const problems: Problem[] = []
  const from = aligned ? 1 : 0
  if (`${base.shape.slice(from)}` !== `${post.shape.slice(from)}` || base.shape.length !== post.shape.length)
    problems.push(shapeMismatch(name, `[${base.shape}] as in base`, `[${post.shape}] in post`))
  if (!isFloat(base.dtype)) problems.push(notFloat(name, 'base', base.dtype))
  if (!isFloat(post.dtype)) problems.push(notFloat(name, 'post', post.dtype))
  return problems
}

/** How the rows of base and post go together; undefined where neither has an embedding that we know. */
function alignPair({ base, post, vocabularies }: DeltaOptions): RowAlignment | undefined {
  const rows = { base: vocabularyRows(base), post: vocabularyRows(post) }
  if (rows.base === undefined || rows.post === undefined) return undefined
  return alignVocabularies({
    base: { rows: rows.base, vocabulary: vocabularies?.base },
    post: { rows: rows.post, vocabulary: vocabularies?.post },
  })
}

/** Rows V of the embedding [V, H]; undefined for an unknown family or a checkpoint without one. */
export function vocabularyRows(checkpoint: Checkpoint): number | undefined {
  const family = knownFamily(checkpoint)
  const name = [...checkpoint.tensors.keys()].find((each) => isVocabularyTensor(family, each))
  return name === undefined ? undefined : rowsOf(checkpoint.tensors.get(name))
}

function rowsOf(tensor: Tensor | undefined): number {
  return tensor?.shape[0] ?? 0
}

interface Pair {
  readonly base: Expr
  readonly post: Expr
}

function difference({ base, post }: Pair): Expr {
  return { op: 'sub', args: [post, base] }
}

function alignedDelta(pair: Pair, shape: readonly number[], baseRows: number, { runs }: RowAlignment): Expr {
  const [rows, width] = [shape[0]!, shape[1]!]
  const { graft, post, cpt } = runs!
  return assembleRows(runs!, width, {
    graft: difference({
      base: gatherRows(pair.base, width, graft.base, baseRows),
      post: gatherRows(pair.post, width, graft.post, rows),
    }),
    post: gatherRows(pair.post, width, post, rows),
    cpt: gatherRows(pair.post, width, cpt, rows),
  })
}
