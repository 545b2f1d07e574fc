import type { SharedExpert } from '@polygraft/architectures'
import type { Vocabularies } from '@polygraft/delta'
import {
  type Allowed,
  allowedTensors,
  type Checkpoint,
  type Provenance,
  type Skipped,
  withoutAllowed,
} from '@polygraft/tensor'

/** How a delta is added. Every factor multiplies: expert e of layer l takes lambda * expertLambda(e) * layerLambda(l). */
export interface GraftSettings {
  /** Default 1. */
  readonly lambda?: number
  /** Factor by expert, 1 where left out. Where experts were cut into parts, by the whole that they are parts of. */
  readonly expertLambda?: ReadonlyMap<number, number>
  /** Factor by layer, for its experts and for all else in it; 1 where left out. */
  readonly layerLambda?: ReadonlyMap<number, number>
  /**
   * Scale each router so that the delta of the norm before it leaves its logits where they were:
   * R' = R * (w_cpt / w_output), column by column. Default false: routers are copied bit for bit.
   */
  readonly foldRouter?: boolean
  /**
   * What a shared expert is where no recipe says it: zeros put there for the format, or the dense block itself, which then takes
   * the delta.
   */
  readonly sharedExpert?: SharedExpert
  /**
   * The provenance of the checkpoint that cpt was trained from, where cpt has lost its own (trainers do not save
   * `polygraft.json`). It tells how experts were cut, scaled or drawn anew, and which layers were inserted.
   */
  readonly upcycled?: Provenance
  /** Tensors of the inputs that the result has no place for, and that are left out on purpose. */
  readonly allow?: readonly Allowed[]
  /** Go on although configs, families or the delta's base differ. Shapes must agree all the same. */
  readonly force?: boolean
  /** From `readVocabularies`. Without them rows go together by id, which needs equal row counts. */
  readonly vocabularies?: Vocabularies
}

/** The delta as the two dense checkpoints whose difference it is. */
export interface PairSource {
  readonly base: Checkpoint
  readonly post: Checkpoint
}

/** The delta as `createDelta` made it, perhaps written and opened again. */
export interface StoredSource {
  readonly delta: Checkpoint
}

export type GraftOptions = GraftSettings & (PairSource | StoredSource)

/** lambda * expertLambda(e) * layerLambda(l); a tensor outside of experts or layers has only the other factors. */
export function lambdaOf(
  settings: GraftSettings,
  layer: number | undefined,
  expert: number | undefined,
): number {
  const { lambda = 1, expertLambda, layerLambda } = settings
  const byExpert = expert === undefined ? 1 : (expertLambda?.get(expert) ?? 1)
  const byLayer = layer === undefined ? 1 : (layerLambda?.get(layer) ?? 1)
  return lambda * byExpert * byLayer
}

/** All checkpoints that meet in a graft, by what a user calls them. */
export function checkpointsOf(cpt: Checkpoint, options: GraftOptions): Readonly<Record<string, Checkpoint>> {
  return 'delta' in options ? { cpt, delta: options.delta } : { cpt, base: options.base, post: options.post }
}

/** cpt and the options without the tensors that may be left out. */
export function withoutAllowedIn(
  cpt: Checkpoint,
  options: GraftOptions,
): { readonly cpt: Checkpoint; readonly options: GraftOptions } {
  const { allow = [] } = options
  const cut = (each: Checkpoint) => withoutAllowed(each, allow)
  return {
    cpt: cut(cpt),
    options:
      'delta' in options
        ? { ...options, delta: cut(options.delta) }
        : { ...options, base: cut(options.base), post: cut(options.post) },
  }
}

/** Those tensors, of all checkpoints. */
export function allowedIn(cpt: Checkpoint, options: GraftOptions): readonly Skipped[] {
  return Object.entries(checkpointsOf(cpt, options)).flatMap(([role, each]) =>
    allowedTensors(each, options.allow ?? [], role),
  )
}
