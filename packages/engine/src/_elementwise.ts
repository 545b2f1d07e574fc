import type { KernelExpr } from '@polygraft/kernels'
import { type Expr, type FloatDType, isFloat, type Source, type SourceId } from '@polygraft/tensor'
import { storedDType } from './validate.js'

/** An operand that is not elementwise itself: what fills an input of a kernel. */
export interface Leaf {
  readonly expr: Expr
  readonly dtype: FloatDType
}

/** The elementwise part of `exprs` down to their leaves; one that lies in files keeps its dtype, a mask is made as BF16, others are `wide`. */
export function splitElementwise(
  exprs: readonly Expr[],
  wide: 'F32' | 'F64',
  sources: ReadonlyMap<SourceId, Source>,
): { roots: KernelExpr[]; leaves: readonly Leaf[] } {
  const leaves: Leaf[] = []
  const known = new Map<Expr | string, KernelExpr>()

  function leaf(e: Expr): KernelExpr {
    const key = e.op === 'read' ? `${e.source} ${e.tensor}` : e
    const found = known.get(key)
    if (found) return found
    const stored = e.op === 'mask' ? 'BF16' : storedDType(e, sources)
    leaves.push({ expr: e, dtype: stored !== undefined && isFloat(stored) ? stored : wide })
    const made: KernelExpr = { op: 'input', index: leaves.length - 1 }
    known.set(key, made)
    return made
  }

  function visit(e: Expr): KernelExpr {
    switch (e.op) {
      case 'add':
      case 'sub':
      case 'mul':
        return { op: e.op, args: e.args.map(visit) }
      case 'elect':
        return electOf(e, visit)
      case 'scale':
        return { op: 'scale', by: e.by, arg: visit(e.arg) }
      case 'cast':
        return { op: 'cast', dtype: e.dtype, arg: visit(e.arg) }
      case 'keep':
        return {
          op: 'keep',
          arg: visit(e.arg),
          ...(e.by ? { by: visit(e.by) } : {}),
          threshold: e.threshold,
          tieEnd: e.tieEnd,
        }
      case 'graft': {
        const [cpt, base, post] = [visit(e.cpt), visit(e.base), visit(e.post)]
        return {
          op: 'graft',
          cpt,
          base,
          post,
          lambda: e.lambda,
          ...(e.frozen ? { frozen: visit(e.frozen) } : {}),
        }
      }
      case 'select':
        return { op: 'select', mask: visit(e.mask), on: visit(e.on), off: visit(e.off) }
      case 'clamp':
        return { op: 'clamp', arg: visit(e.arg), to: visit(e.to), by: e.by }
      case 'ratio':
        return { op: 'ratio', num: visit(e.num), den: visit(e.den), guard: e.guard }
      default:
        return leaf(e)
    }
  }
  return { roots: exprs.map(visit), leaves }
}

function electOf(e: Extract<Expr, { op: 'elect' }>, visit: (e: Expr) => KernelExpr): KernelExpr {
  const { sum, ...rest } = e
  return { ...rest, args: e.args.map(visit), ...(sum ? { sum: visit(sum) } : {}) }
}

/** What a kernel takes as an input: it is not elementwise in operands. */
const LEAVES: ReadonlySet<Expr['op']> = new Set([
  'read',
  'rows',
  'ranks',
  'columns',
  'spread',
  'concat',
  'lowrank',
  'random',
  'mask',
  'literal',
])

/** Whether an expression is computed by a kernel of its own. */
export function isElementwise({ op }: Expr): boolean {
  return !LEAVES.has(op)
}
