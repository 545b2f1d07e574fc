import type { Layout, Piece } from '@polygraft/experts'
import type { Checkpoint, Expr, Skipped, Tensor } from '@polygraft/tensor'
import type { ResolvedOptions } from './options.js'

/** The dense tensors that a mixture is made of, and which of them were asked for. */
export interface DenseSources {
  /** What `piece` derives from; undefined where the base has no such tensor. */
  find(piece: Piece): Tensor | undefined
  /** Tensors that nothing asked for, and why. */
  unused(layout: Layout): readonly Skipped[]
}

/** The models that experts come from: the base where a copy does, and each other once. */
function modelsOf(base: Checkpoint, { expertsFrom, experts }: ResolvedOptions): readonly Checkpoint[] {
  const copies = Array.from({ length: experts }, (_, copy) => expertsFrom.get(copy) ?? base)
  return [...new Set(copies)]
}

export function denseSources(base: Checkpoint, options: ResolvedOptions): DenseSources {
  const { expertsFrom, others } = options
  const models = modelsOf(base, options)
  const used = new Map([base, ...models].map((model) => [model, new Set<string>()]))
  const take = (model: Checkpoint, name: string) => {
    used.get(model)!.add(name)
    return model.tensors.get(name)
  }
  const means = new Map<string, Expr>()
  return {
    find({ dense, copy }) {
      const own = base.tensors.get(dense)
      // The mixture has the base's dtypes, whoever its experts come from.
      if (copy !== undefined) return own && { ...own, expr: take(expertsFrom.get(copy) ?? base, dense)!.expr }
      if (others === 'base' || models.length === 1) return take(others === 'base' ? base : models[0]!, dense)
      const mean = means.get(dense) ?? meanOf(models.map((model) => take(model, dense)!.expr))
      means.set(dense, mean)
      return own && { ...own, expr: mean }
    },
    unused: ({ denseNames }) =>
      [...used].flatMap(([model, names]) =>
        [...model.tensors.keys()]
          .filter((tensor) => !names.has(tensor))
          .map((tensor) => ({ tensor, reason: reasonFor(model === base, denseNames.has(tensor), options) })),
      ),
  }
}

/** Left fold in F32, then the division, rounded once when stored. */
function meanOf(exprs: readonly Expr[]): Expr {
  return { op: 'scale', by: 1 / exprs.length, arg: { op: 'add', args: exprs } }
}

function reasonFor(isBase: boolean, isStock: boolean, { others }: ResolvedOptions): string {
  if (!isStock) return 'a buffer that every model computes from its config, or a head that tying ignores'
  if (!isBase) return 'only the feed-forward blocks of this model become experts'
  return others === 'mean' ? 'no expert comes from the base' : 'every expert comes from another model'
}
