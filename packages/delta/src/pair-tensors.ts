import { type Family, familyOf } from '@polygraft/architectures'
import {
  type Checkpoint,
  isFloat,
  ModelError,
  type Problem,
  type RowRuns,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { alignVocabularies, type RowAlignment } from './align-vocabularies.js'
import { gatherRows } from './assemble-rows.js'
import { vocabularyRows } from './create-delta.js'
import { isVocabularyTensor } from './effective-tensors.js'
import { readVocabularies } from './vocabulary.js'

/** Two tensors of one name and shape whose elements belong together. */
export interface Pair {
  readonly name: string
  readonly base: Tensor
  readonly post: Tensor
}

/** What two checkpoints share, and what they do not. */
export interface Pairs {
  readonly pairs: readonly Pair[]
  readonly onlyInBase: readonly string[]
  readonly onlyInPost: readonly string[]
  /** Integer and quantised tensors. */
  readonly notMeasured: readonly string[]
  /** Rows of embedding and head, where tokenizers differ and rows go together by token. */
  readonly vocabulary?: { readonly compared: number; readonly inBase: number; readonly inPost: number }
  readonly warnings: readonly Problem[]
}

/**
 * Tensors of both checkpoints by name; rows of embedding and head by token where the tokenizers differ.
 * @throws ModelError "nothing-shared"; "shape-mismatch" with all tensors; "vocabulary-unknown", "vocabulary-collision" where
 *   the row counts differ and the tokenizers do not tell which rows go together.
 */
export async function pairTensors(base: Checkpoint, post: Checkpoint): Promise<Pairs> {
  const shared = [...base.tensors.keys()].filter((name) => post.tensors.has(name))
  if (shared.length === 0) throw nothingShared(base, post)
  const rows = await alignRows(base, post)
  const family = familyOrNone(post)
  const all = shared.map((name): Pair => {
    const pair = { name, base: base.tensors.get(name)!, post: post.tensors.get(name)! }
    return rows.runs && isVocabularyTensor(family, name) ? gather(pair, rows.runs.graft) : pair
  })
  throwIfAny(all.flatMap(shapeProblem))
  const isMeasurable = (pair: Pair) => isFloat(pair.base.dtype) && isFloat(pair.post.dtype)
  return {
    pairs: all.filter(isMeasurable),
    onlyInBase: [...base.tensors.keys()].filter((name) => !post.tensors.has(name)),
    onlyInPost: [...post.tensors.keys()].filter((name) => !base.tensors.has(name)),
    notMeasured: all.filter((pair) => !isMeasurable(pair)).map(({ name }) => name),
    ...(rows.runs ? { vocabulary: countRows(rows.runs.graft.post, base, post) } : {}),
    warnings: rows.warnings,
  }
}

/** The family that the config names; undefined when it is not one of ours. */
export function familyOrNone(checkpoint: Checkpoint): Family | undefined {
  try {
    return familyOf(checkpoint.config)
  } catch (error) {
    if (error instanceof ModelError) return undefined
    throw error
  }
}

async function alignRows(
  base: Checkpoint,
  post: Checkpoint,
): Promise<{ runs?: RowAlignment['runs']; warnings: readonly Problem[] }> {
  const [inBase, inPost] = [vocabularyRows(base), vocabularyRows(post)]
  if (inBase === undefined || inPost === undefined) return { warnings: [] }
  const vocabularies = await readVocabularies({ base, post })
  const { runs, problems } = alignVocabularies({
    base: { rows: inBase, vocabulary: vocabularies.base },
    post: { rows: inPost, vocabulary: vocabularies.post },
  })
  if (problems.length === 0) return { runs, warnings: [] }
  if (inBase !== inPost) throw new ModelError(problems)
  // A difference is still a difference when an id was given a new token, so it is shown and not refused.
  return { warnings: problems }
}

function gather({ name, base, post }: Pair, runs: { readonly base: RowRuns; readonly post: RowRuns }): Pair {
  const take = (tensor: Tensor, taken: RowRuns): Tensor => {
    const [rows, width] = tensor.shape as [number, number]
    return { ...tensor, shape: [countOf(taken), width], expr: gatherRows(tensor.expr, width, taken, rows) }
  }
  return { name, base: take(base, runs.base), post: take(post, runs.post) }
}

function countOf(runs: RowRuns): number {
  return runs.reduce((sum, [, count]) => sum + count, 0)
}

function countRows(runs: RowRuns, base: Checkpoint, post: Checkpoint) {
  return { compared: countOf(runs), inBase: vocabularyRows(base)!, inPost: vocabularyRows(post)! }
}

function shapeProblem({ name, base, post }: Pair): Problem[] {
  const [expected, received] = [base, post].map(({ shape }) => `[${shape.join(', ')}]`)
  if (expected === received) return []
  return [
    {
      code: 'shape-mismatch',
      message: 'Shapes differ between base and post',
      tensor: name,
      expected: `${expected} as in base`,
      received: `${received} in post`,
    },
  ]
}

function nothingShared(base: Checkpoint, post: Checkpoint): ModelError {
  const some = ({ tensors }: Checkpoint) => [...tensors.keys()].slice(0, 3).join(', ')
  return new ModelError({
    code: 'nothing-shared',
    message: 'The two checkpoints have no tensor in common',
    expected: some(base),
    received: some(post),
    next: 'Compare checkpoints of one family, for instance a base with its instruct version.',
  })
}
