import { type Family, familyOf, nameOf, withBothSpellings } from '@polygraft/architectures'
import { isTied, type RowAlignment, skippedTensors, storedExpr } from '@polygraft/delta'
import {
  type Checkpoint,
  type Expr,
  type FloatDType,
  type JsonObject,
  mergeSources,
  type Op,
  type Skipped,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { alignRows, type DenseDelta, denseDelta, graftRows, type TensorDelta } from './_dense-delta.js'
import { withOrigin } from './_expansion.js'
import { outputFiles } from './_output-files.js'
import { graftPieces, pieceDeltas } from './_piece-deltas.js'
import { planSteps, type Step } from './_plan.js'
import { graftProblems } from './graft-problems.js'
import { graftStep } from './graft-step.js'
import { allowedIn, checkpointsOf, type GraftOptions, withoutAllowedIn } from './options.js'

/** Where the norm's new weight is as near to zero as this, a router's column is not rescaled. */
export const FOLD_GUARD = 1e-6

/**
 * Adds a post-training delta to an upcycled model after continued pre-training (Zhou et al., arXiv:2605.18083), for
 * expert e of layer l and p in {gate, up, down}: theta[l, e, p] = cpt[l, e, p] + lambda[e, l] * (post - base)[l, p];
 * for every other tensor once: cpt + lambda * (post - base). Routers, and shared experts that are placeholders, take
 * none. A dense cpt is grafted alike (Param-delta, arXiv:2504.21023); inserted layers take none (LLaMA Pro, arXiv:2401.02415).
 * Where experts were cut, scaled or drawn anew in part, the same is done to the difference (`@polygraft/experts`), as cpt's
 * recipe tells. Symbolic: nothing is read.
 *
 * Element by element: cpt where post equals base; post where lambda is 1 and cpt equals base, so that what continued
 * pre-training froze becomes post bit for bit. A stored delta no longer knows base, and cannot promise the second.
 *
 * Embedding and head go by token (`alignVocabularies`); the output is untied unless cpt and the delta are tied. dtypes
 * and config are cpt's, with post's bos, eos and pad ids; tokenizer, chat template and generation config are post's.
 * @throws ModelError with every one of `graftProblems`.
 */
export function graft(all: GraftOptions): Op {
  return (given) => {
    throwIfAny(graftProblems(given, all))
    const { cpt: whole, options } = withoutAllowedIn(given, all)
    const cpt = withOrigin(whole, options)
    const delta = denseDelta(options)
    const tied = isTied(cpt) && delta.tied
    const rows = alignRows(cpt, options)
    const tensors = graftTensors(cpt, delta, options, rows)
    const { carrier, checkpoints } = delta
    const { vocabularies } = options
    return {
      config: outputConfig(cpt, carrier.config, tied, rows.rows),
      floatFields: [...new Set([...(cpt.floatFields ?? []), ...(carrier.floatFields ?? [])])].sort(),
      tensors,
      files: outputFiles(cpt.files, carrier, rows.tokenizer, vocabularies?.delta ?? vocabularies?.post),
      sources: mergeSources(cpt, ...checkpoints),
      provenance: {
        ...cpt.provenance,
        recipe: [...cpt.provenance.recipe, graftStep(cpt, options, rows)],
        skipped: [...cpt.provenance.skipped, ...skipped(cpt, options), ...allowedIn(given, all)],
      },
    }
  }
}

function graftTensors(
  cpt: Checkpoint,
  delta: DenseDelta,
  options: GraftOptions,
  rows: RowAlignment,
): ReadonlyMap<string, Tensor> {
  const family = familyOf(cpt.config)
  const deltas = delta.tensors(!(isTied(cpt) && delta.tied))
  const steps = planSteps(cpt, delta, options)
  const byName = new Map(steps.map((step) => [step.name, step]))
  const grafted = (step: Step) => graftTensor(step, deltas, cpt, rows)
  const result = new Map<string, Tensor>()
  for (const step of steps) {
    const norm =
      options.foldRouter && step.role.group === 'router' ? byName.get(normBefore(family, step)) : undefined
    const folds = norm?.pieces.some(({ lambda }) => lambda !== 0)
    result.set(step.name, norm && folds ? foldRouter(step.cpt, norm.cpt, grafted(norm), cpt) : grafted(step))
  }
  return result
}

function graftTensor(
  step: Step,
  deltas: ReadonlyMap<string, TensorDelta>,
  cpt: Checkpoint,
  rows: RowAlignment,
): Tensor {
  const before = storedExpr(step.cpt, cpt)
  const isVocabulary = step.role.group === 'embedding' || step.role.group === 'head'
  if (isVocabulary && rows.runs) {
    const { dense, lambda } = step.pieces[0]!
    const shape = [rows.rows, ...step.cpt.shape.slice(1)]
    const expr = graftRows(before, step.cpt.shape[0]!, deltas.get(dense)!, lambda, rows.runs)
    return { dtype: step.cpt.dtype, shape, expr }
  }
  const expr = graftPieces(before, pieceDeltas(step, deltas))
  return expr === before ? step.cpt : { ...step.cpt, expr }
}

function normBefore(family: Family, { role }: Step): string {
  return nameOf(family, { group: 'norm', layer: role.layer!, part: 'ffn_norm' })!
}

/** R' = R * (w_cpt / w_output): [E, H] with the ratio [H] repeated for each expert. The router sees x * w. */
function foldRouter(router: Tensor, before: Tensor, after: Tensor, cpt: Checkpoint): Tensor {
  const [numExperts, width] = [router.shape[0]!, router.shape[1]!]
  // What will be stored, not what was computed, is what the router will see.
  const den: Expr = { op: 'cast', dtype: after.dtype as FloatDType, arg: after.expr }
  const ratio: Expr = { op: 'ratio', num: storedExpr(before, cpt), den, guard: FOLD_GUARD }
  const repeated: Expr = { op: 'spread', arg: ratio, count: width, each: 1, times: numExperts }
  return { ...router, expr: { op: 'mul', args: [storedExpr(router, cpt), repeated] } }
}

const GENERATION_IDS = ['bos_token_id', 'eos_token_id', 'pad_token_id']

function outputConfig(cpt: Checkpoint, post: JsonObject, tied: boolean, rows: number): JsonObject {
  const ids = GENERATION_IDS.filter((key) => Object.hasOwn(post, key)).map(
    (key) => [key, post[key]!] as const,
  )
  const untied = isTied(cpt) && !tied ? { tie_word_embeddings: false } : {}
  return { ...withBothSpellings(cpt.config), ...Object.fromEntries(ids), ...untied, vocab_size: rows }
}

function skipped(cpt: Checkpoint, options: GraftOptions): Skipped[] {
  return Object.entries(checkpointsOf(cpt, options)).flatMap(([role, checkpoint]) =>
    skippedTensors(checkpoint).map(({ tensor, reason }) => ({ tensor, reason: `${reason} (${role})` })),
  )
}
