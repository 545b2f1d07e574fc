import { type FloatDType, ModelError } from '@polygraft/tensor'

/** The elementwise part of an `Expr` (`@polygraft/tensor`), over the tiles given to a kernel instead of stored tensors. */
export type KernelExpr =
  | { readonly op: 'input'; readonly index: number }
  | { readonly op: 'add' | 'sub' | 'mul'; readonly args: readonly KernelExpr[] }
  | { readonly op: 'scale'; readonly by: number; readonly arg: KernelExpr }
  | { readonly op: 'cast'; readonly dtype: FloatDType; readonly arg: KernelExpr }
  | {
      readonly op: 'graft'
      readonly cpt: KernelExpr
      readonly base: KernelExpr
      readonly post: KernelExpr
      readonly lambda: number
      readonly frozen?: KernelExpr
    }
  | { readonly op: 'select'; readonly mask: KernelExpr; readonly on: KernelExpr; readonly off: KernelExpr }
  | { readonly op: 'ratio'; readonly num: KernelExpr; readonly den: KernelExpr; readonly guard: number }
  | { readonly op: 'clamp'; readonly arg: KernelExpr; readonly to: KernelExpr; readonly by: number }
  | {
      readonly op: 'keep'
      readonly arg: KernelExpr
      readonly by?: KernelExpr
      readonly threshold: number
      readonly tieEnd: number
    }
  | {
      readonly op: 'elect'
      readonly args: readonly KernelExpr[]
      readonly by?: Election['by']
      readonly sum?: KernelExpr
      readonly zero?: 'positive'
      readonly weights?: readonly number[]
    }

/** How signs are elected, see `Expr`. */
export interface Election {
  readonly by: 'sum' | 'count' | 'any'
  readonly positive: boolean
  /** Indices of scalars, one for each argument; or that each counts as 1, or that nothing is divided. */
  readonly weights: 'equal' | 'none' | readonly number[]
}

/**
 * One value per element; operands are indices of earlier nodes, `scalar` an index into the kernel's scalars, `end` into its ends.
 * `equal` is a mask. A `graft` takes post - base and post == base as nodes of their own, so that all the experts that
 * share base and post share them too; its `base` is what cpt is compared with.
 */
export type KernelNode =
  | { readonly op: 'input'; readonly index: number }
  | { readonly op: 'add' | 'sub' | 'mul' | 'equal'; readonly a: number; readonly b: number }
  | { readonly op: 'scale'; readonly a: number; readonly scalar: number }
  | { readonly op: 'cast'; readonly a: number; readonly dtype: FloatDType }
  | { readonly op: 'ratio'; readonly a: number; readonly b: number; readonly scalar: number }
  | { readonly op: 'select'; readonly mask: number; readonly a: number; readonly b: number }
  /** `b` is what is compared with the threshold. */
  | {
      readonly op: 'keep'
      readonly a: number
      readonly b: number
      readonly scalar: number
      readonly end: number
    }
  /** `delta` is a - b. */
  | {
      readonly op: 'clamp'
      readonly a: number
      readonly b: number
      readonly delta: number
      readonly scalar: number
    }
  /** `sum` is the left fold of `args`, or what stands for it. */
  | ({ readonly op: 'elect'; readonly args: readonly number[]; readonly sum: number } & Election)
  | {
      readonly op: 'graft'
      readonly cpt: number
      readonly base: number
      readonly post: number
      readonly delta: number
      readonly same: number
      /** Absent where lambda is 1: then cpt == base gives post, and nothing is multiplied. */
      readonly scalar?: number
    }

/**
 * Elementwise arithmetic in static single assignment: plain data, operands before users, equal nodes only once.
 * An output is computed in F64 when its dtype is F64, else in F32 (F64 inputs are then rounded to F32 first, scalars
 * too); each operation is rounded apart, and the result once more to the output's dtype, NaN becoming canonical.
 */
export interface Kernel {
  readonly inputs: readonly FloatDType[]
  readonly nodes: readonly KernelNode[]
  readonly outputs: readonly { readonly node: number; readonly dtype: FloatDType }[]
  /**
   * `by`, `lambda` but for 1, `guard`, `threshold` and `weights` as built. Not part of the structure: a kernel runs with any others as
   * well.
   */
  readonly scalars: readonly number[]
  /** `tieEnd` as built: indices of elements, counted as the expression's own are. Not part of the structure either. */
  readonly ends: readonly number[]
}

/** One result of a kernel: what, and how it is stored. */
export interface KernelOutput {
  readonly expr: KernelExpr
  readonly dtype: FloatDType
}

/** What grafting did to the elements of one output, or of several together. Unit: elements. */
export interface GraftCounts {
  /** Elements where post != base. */
  readonly changed: number
  /** Of those, the ones whose output is stored exactly as cpt would be: the dtype could not show the change. */
  readonly swallowed: number
}

/** Elements of an output that are NaN or infinite. */
export interface NonFinite {
  /** An element of that index of an input that it is computed from is so too. */
  readonly fromInputs: number
  /** Arithmetic on finite elements made it, or rounding to the output's dtype did. */
  readonly made: number
}

/** What is counted of one output: changed and swallowed are zero where it is not a `graft` itself. */
export interface OutputCounts extends GraftCounts {
  /** Absent where all elements are finite. */
  readonly nonFinite?: NonFinite
}

/** The sums over the outputs, and each output's share. */
export interface KernelCounts extends GraftCounts {
  readonly outputs: readonly OutputCounts[]
}

/** A kernel with buffers for one tile. Not reentrant; another thread makes its own. */
export interface TileKernel {
  /** To be filled before `run`: input i as stored, from byte 0. The views stay valid. */
  readonly inputs: readonly Uint8Array[]
  /** Holds the outputs after `run`, each from byte 0. */
  readonly outputs: readonly Uint8Array[]
  /**
   * Computes elements [0, count) of every output. Leaves the inputs as they are.
   * @param scalars as many as `kernel.scalars`, in that order; usually just these.
   * @param ends as many as `kernel.ends`, in that order, counted from the tile's first element: usually these less its index.
   * @throws ModelError 'bad-kernel' when count exceeds the tile or the scalars are too few.
   */
  run(count: number, scalars: ArrayLike<number>, ends?: ArrayLike<number>): KernelCounts
}

/**
 * The kernel that computes `outputs` over inputs stored as `inputs`.
 * @throws ModelError 'bad-kernel' for an input that is not there or an operation without operands.
 */
export function buildKernel(inputs: readonly FloatDType[], outputs: readonly KernelOutput[]): Kernel {
  const nodes: KernelNode[] = []
  const scalars: number[] = []
  const ends: number[] = []
  const known = new Map<string, number>()

  function node(made: KernelNode): number {
    const key = JSON.stringify(made)
    const found = known.get(key)
    if (found !== undefined) return found
    known.set(key, nodes.length)
    return nodes.push(made) - 1
  }

  function indexIn(values: number[], value: number): number {
    const found = values.findIndex((s) => Object.is(s, value))
    return found >= 0 ? found : values.push(value) - 1
  }
  const scalar = (value: number) => indexIn(scalars, value)

  function fold(op: 'add' | 'sub' | 'mul', args: readonly number[], of: string = op): number {
    const [first, ...rest] = args
    if (first === undefined) throw badKernel(`'${of}' has no operands`, 'at least one', 'none')
    return rest.reduce((a, b) => node({ op, a, b }), first)
  }

  function visit(expr: KernelExpr): number {
    switch (expr.op) {
      case 'input':
        return node({ op: 'input', index: checkedIndex(expr.index, inputs) })
      case 'add':
      case 'sub':
      case 'mul':
        return fold(expr.op, expr.args.map(visit))
      case 'elect': {
        const args = expr.args.map(visit)
        const { by = 'sum', zero, weights } = expr
        if (weights && weights.length > 0 && weights.length !== args.length)
          throw badKernel('The weights are not one for each operand', `${args.length}`, `${weights.length}`)
        return node({
          op: 'elect',
          args,
          sum: expr.sum ? visit(expr.sum) : fold('add', args, 'elect'),
          by,
          positive: zero === 'positive',
          weights: !weights ? 'equal' : weights.length === 0 ? 'none' : weights.map(scalar),
        })
      }
      case 'scale':
        return node({ op: 'scale', a: visit(expr.arg), scalar: scalar(expr.by) })
      case 'cast':
        return node({ op: 'cast', a: visit(expr.arg), dtype: expr.dtype })
      case 'ratio':
        return node({ op: 'ratio', a: visit(expr.num), b: visit(expr.den), scalar: scalar(expr.guard) })
      case 'clamp': {
        const [a, b] = [visit(expr.arg), visit(expr.to)]
        return node({ op: 'clamp', a, b, delta: node({ op: 'sub', a, b }), scalar: scalar(expr.by) })
      }
      case 'keep': {
        const end = indexIn(ends, expr.tieEnd)
        const a = visit(expr.arg)
        const b = expr.by ? visit(expr.by) : a
        return node({ op: 'keep', a, b, scalar: scalar(expr.threshold), end })
      }
      case 'graft': {
        const [base, post, cpt] = [visit(expr.base), visit(expr.post), visit(expr.cpt)]
        const delta = node({ op: 'sub', a: post, b: base })
        const same = node({ op: 'equal', a: post, b: base })
        const frozen = expr.frozen ? visit(expr.frozen) : base
        const by = expr.lambda === 1 ? {} : { scalar: scalar(expr.lambda) }
        return node({ op: 'graft', cpt, base: frozen, post, delta, same, ...by })
      }
      case 'select':
        return node({ op: 'select', mask: visit(expr.mask), a: visit(expr.on), b: visit(expr.off) })
    }
  }

  const built = outputs.map(({ expr, dtype }) => ({ node: visit(expr), dtype }))
  return { inputs, nodes, outputs: built, scalars, ends }
}

/** Names a kernel's structure: everything but the values of its scalars. Equal keys, equal code. */
export function kernelKey({ inputs, nodes, outputs }: Kernel): string {
  return JSON.stringify([inputs, nodes, outputs])
}

/** The nodes that `node` is computed from. */
export function operandsOf(node: KernelNode): readonly number[] {
  switch (node.op) {
    case 'input':
      return []
    case 'scale':
    case 'cast':
      return [node.a]
    case 'elect':
      return [...node.args, node.sum]
    case 'clamp':
      return [node.a, node.b, node.delta]
    case 'select':
      return [node.mask, node.a, node.b]
    case 'graft':
      return [node.cpt, node.base, node.post, node.delta, node.same]
    default:
      return [node.a, node.b]
  }
}

/** The error for a kernel that is not well formed or is not used as it was built. */
function badKernel(message: string, expected: string, received: string): ModelError {
  return new ModelError({ code: 'bad-kernel', message, expected, received })
}

/** Refuses a run beyond the tile's size or with missing scalars or ends. */
export function checkRun(
  kernel: Kernel,
  maxElements: number,
  count: number,
  scalars: ArrayLike<number>,
  ends: ArrayLike<number>,
): void {
  if (!Number.isInteger(count) || count < 0 || count > maxElements)
    throw badKernel('The tile does not hold that many elements', `0 to ${maxElements}`, `${count}`)
  if (scalars.length < kernel.scalars.length)
    throw badKernel('Scalars are missing', `${kernel.scalars.length}`, `${scalars.length}`)
  if (ends.length < kernel.ends.length)
    throw badKernel('Ends are missing', `${kernel.ends.length}`, `${ends.length}`)
}

/** Sums the counts of the outputs. */
export function sumCounts(outputs: readonly OutputCounts[]): KernelCounts {
  const changed = outputs.reduce((sum, output) => sum + output.changed, 0)
  const swallowed = outputs.reduce((sum, output) => sum + output.swallowed, 0)
  return { changed, swallowed, outputs }
}

function checkedIndex(index: number, inputs: readonly FloatDType[]): number {
  if (inputs[index] === undefined)
    throw badKernel(
      'The expression names an input that the kernel does not have',
      `0 to ${inputs.length - 1}`,
      `${index}`,
    )
  return index
}
