import { expectedTensors, familyOf } from '@polygraft/architectures'
import {
  countTargets,
  type DivergenceTarget,
  type GramTarget,
  type Measures,
  type MergeTargets,
  NO_MEASURES,
  type TrimTarget,
} from '@polygraft/delta'
import {
  type ByteSource,
  type Checkpoint,
  type Expr,
  type JsonObject,
  literalValues,
  numel,
  type Source,
  stateDictOf,
  type Tensor,
} from '@polygraft/tensor'

/** F32 values of every source's tensors: `values.get(source id)!.get(tensor)`. */
const values = new Map<string, ReadonlyMap<string, Float32Array>>()
let sources = 0

/** A checkpoint of F32 tensors given by their values and shapes, under a new id. */
export function checkpointOf(
  tensors: Readonly<
    Record<string, { readonly shape: readonly number[]; readonly values: ArrayLike<number> }>
  >,
  config: JsonObject = {},
  files: Readonly<Record<string, string>> = {},
): Checkpoint {
  const id = `memory:${sources++}`
  const entries = Object.entries(tensors)
  const stored = new Map(
    entries.map(([name, { shape }]) => {
      return [
        name,
        { dtype: 'F32' as const, shape, file: 'model.safetensors', begin: 0, end: 4 * numel(shape) },
      ]
    }),
  )
  values.set(id, new Map(entries.map(([name, { values }]) => [name, Float32Array.from(values)])))
  const source: Source = { id, location: id, tensors: stored, shards: new Map() }
  const blobs = Object.entries(files).map(([name, text]): [string, ByteSource] => [name, new Blob([text])])
  return {
    config,
    tensors: stateDictOf(source),
    files: new Map(blobs),
    sources: new Map([[id, source]]),
    provenance: { recipe: [], skipped: [] },
  }
}

/** A checkpoint of the one tensor w. */
export function vectorOf(values: readonly number[], shape: readonly number[] = [values.length]): Checkpoint {
  return checkpointOf({ w: { shape, values } })
}

/** The values of w. */
export function wOf({ tensors }: Checkpoint): number[] {
  return valuesOf(tensors.get('w'))
}

/** A dense model of that config with small whole numbers, different for each seed. */
export function tinyModel(
  seed: number,
  change: JsonObject = {},
  files: Readonly<Record<string, string>> = {},
): Checkpoint {
  const config: JsonObject = { ...TINY, ...change }
  const tensors: Record<string, { shape: readonly number[]; values: number[] }> = {}
  let state = seed
  for (const [name, shape] of expectedTensors(familyOf(config), config)) {
    const values = Array.from({ length: numel(shape) }, () => {
      state = (state * 16807 + 11) % 2147483647
      return (state % 17) - 8
    })
    tensors[name] = { shape, values }
  }
  return checkpointOf(tensors, config, files)
}

const TINY = {
  model_type: 'llama',
  vocab_size: 6,
  hidden_size: 4,
  intermediate_size: 3,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
}

/** The values of a tensor, by the definition of `Expr` and nothing else: the oracle of these tests. */
export function valuesOf(tensor: Tensor | undefined): number[] {
  return [...evaluate(tensor!.expr)]
}

/** Everything that is asked for, as `measureMerge` with an engine would find it. */
export function measured(targetsOf: (measured: Measures) => MergeTargets): Measures {
  let all = NO_MEASURES
  for (;;) {
    const targets = targetsOf(all)
    if (countTargets(targets) === 0) return all
    all = {
      thresholds: new Map([...all.thresholds, ...mapValues(targets.thresholds, threshold)]),
      statistics: new Map([...all.statistics, ...mapValues(targets.statistics, statistics)]),
      grams: new Map([...all.grams, ...mapValues(targets.grams, gram)]),
      divergences: new Map([...all.divergences, ...mapValues(targets.divergences, divergences)]),
    }
  }
}

function mapValues<A, B>(map: ReadonlyMap<string, A>, change: (value: A) => B): [string, B][] {
  return [...map].map(([key, value]) => [key, change(value)])
}

/** By sorting, the first of equal ones first. */
function threshold({ tensor, keep }: TrimTarget) {
  const values = valuesOf(tensor)
  const ranked = [...values.keys()].sort((i, j) => Math.abs(values[j]!) - Math.abs(values[i]!) || i - j)
  const kept = ranked.slice(0, keep)
  const threshold = Math.min(...kept.map((i) => Math.abs(values[i]!)), Number.MAX_VALUE)
  const last = Math.max(...kept.filter((i) => Math.abs(values[i]!) === threshold), -1)
  return { threshold, tieEnd: last + 1 }
}

function statistics(tensor: Tensor) {
  const values = valuesOf(tensor)
  const sum = (of: (x: number) => number) => values.reduce((total, x) => total + of(x), 0)
  return {
    sumAbs: sum(Math.abs),
    sumSquares: sum((x) => x * x),
    count: values.length,
    zeros: values.filter((x) => x === 0).length,
  }
}

function gram({ tensors, by, width = 1 }: GramTarget) {
  const all = tensors.map(valuesOf)
  const total = all[0]!.length
  const groups = by === 'rows' ? total / width : by === 'columns' ? width : 1
  const groupOf = (i: number) => (by === 'rows' ? Math.floor(i / width) : by === 'columns' ? i % width : 0)
  const dot = (a: number[], b: number[], group: number) =>
    a.reduce((sum, x, i) => sum + (groupOf(i) === group ? x * b[i]! : 0), 0)
  const products = Array.from({ length: groups }, (_, group) =>
    all.flatMap((a, i) => all.slice(i).map((b) => dot(a, b, group))),
  )
  return { products: products.flat() }
}

/** KL of the softmax of each row of a from that of b, with 1e-8 added to each probability. */
function divergences({ a, b, width }: DivergenceTarget): number[] {
  const rowsOf = (values: number[]) =>
    Array.from({ length: values.length / width }, (_, r) => values.slice(r * width, (r + 1) * width))
  const softmax = (row: number[]) => {
    const powers = row.map(Math.exp)
    const sum = powers.reduce((total, x) => total + x, 0)
    return powers.map((x) => x / sum + 1e-8)
  }
  const [p, q] = [a, b].map((tensor) => rowsOf(valuesOf(tensor)).map(softmax))
  return p!.map((row, r) => row.reduce((sum, x, j) => sum + x * Math.log(x / q![r]![j]!), 0))
}

/** A stand-in for masks: any function of its name, seed and index does for these tests. */
export function maskOf(mask: Extract<Expr, { op: 'mask' }>, length: number): number[] {
  return thousandthsOf(mask, length).map((draw) => (draw < 1000 * mask.density ? 1 : 0))
}

/** The same for uniform draws. */
export function drawsOf(random: Extract<Expr, { op: 'random' }>, length: number): number[] {
  return thousandthsOf(random, length).map((draw) => random.scale * (draw / 500 - 1))
}

function thousandthsOf({ name, seed }: { name: string; seed: number }, length: number): number[] {
  const letters = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 65521, seed)
  return Array.from({ length }, (_, i) => ((letters + i * i) * 40503) % 1000)
}

function evaluate(expr: Expr): Float32Array {
  switch (expr.op) {
    case 'read':
      return values.get(expr.source)!.get(expr.tensor)!
    case 'literal':
      return literalValues(expr)
    case 'add':
    case 'sub':
    case 'mul':
      return evaluateAll(expr.args).reduce((a, b) => a.map((x, i) => apply(expr.op, x, b[i]!)))
    case 'scale':
      return evaluate(expr.arg).map((x) => x * Math.fround(expr.by))
    case 'keep': {
      const { threshold, tieEnd } = expr
      const by = evaluate(expr.by ?? expr.arg)
      const isBelow = (x: number, i: number) =>
        Math.abs(x) < threshold || (Math.abs(x) === threshold && i >= tieEnd)
      return evaluate(expr.arg).map((x, i) => (isBelow(by[i]!, i) ? 0 : x))
    }
    case 'elect': {
      const args = expr.args.map(evaluate)
      const sum = expr.sum && evaluate(expr.sum)
      return args[0]!.map((_, i) =>
        elect(
          expr,
          args.map((arg) => arg[i]!),
          sum?.[i],
        ),
      )
    }
    case 'clamp': {
      const to = evaluate(expr.to)
      return evaluate(expr.arg).map((x, i) => clamp(x, to[i]!, Math.fround(expr.by)))
    }
    case 'spread': {
      const [arg, size] = [evaluate(expr.arg), expr.count * expr.each]
      return Float32Array.from(
        { length: size * expr.times },
        (_, i) => arg[Math.floor((i % size) / expr.each)]!,
      )
    }
    case 'ranks': {
      const arg = evaluate(expr.arg)
      const rowOf = (i: number) => Math.floor(i / expr.width)
      const isBelow = (j: number, i: number) => {
        const [x, y] = [Math.abs(arg[j]!), Math.abs(arg[i]!)]
        return rowOf(j) === rowOf(i) && (x < y || (x === y && j > i))
      }
      return arg.map((_, i) => arg.reduce((rank, _x, j) => rank + Number(isBelow(j, i)), 0))
    }
    case 'select': {
      const [mask, on, off] = [evaluate(expr.mask), evaluate(expr.on), evaluate(expr.off)]
      return mask.map((x, i) => (x === 0 ? off[i]! : on[i]!))
    }
    case 'cast':
      return evaluate(expr.arg)
    case 'graft': {
      const [base, post] = [evaluate(expr.base), evaluate(expr.post)]
      return evaluate(expr.cpt).map((c, i) => graft(c, base[i]!, post[i]!, expr.lambda))
    }
    case 'lowrank': {
      const [up, down] = [evaluate(expr.up), evaluate(expr.down)]
      const { rows, rank, width, transposed } = expr
      return Float32Array.from({ length: rows * width }, (_, at) => {
        const [row, column] = transposed
          ? [at % rows, Math.floor(at / rows)]
          : [Math.floor(at / width), at % width]
        let sum = 0
        for (let k = 0; k < rank; k++) sum += up[row * rank + k]! * down[k * width + column]!
        return sum
      })
    }
    case 'ratio': {
      const [num, den] = [evaluate(expr.num), evaluate(expr.den)]
      return num.map((x, i) => (Math.abs(den[i]!) <= expr.guard ? 1 : x / den[i]!))
    }
    case 'rows': {
      const all = evaluate(expr.arg)
      const rows = expr.runs.flatMap(([start, count]) => Array.from({ length: count }, (_, i) => start + i))
      return Float32Array.from(
        rows.flatMap((row) => [...all.slice(row * expr.width, (row + 1) * expr.width)]),
      )
    }
    case 'concat': {
      const parts = expr.args.map(evaluate)
      if (parts.some(({ length }, i) => length !== expr.sizes[i])) throw new Error('sizes of a concat')
      return Float32Array.from(parts.flatMap((part) => [...part]))
    }
    default:
      throw new Error(`no ${expr.op} here`)
  }
}

function apply(op: 'add' | 'sub' | 'mul', a: number, b: number): number {
  return op === 'add' ? a + b : op === 'sub' ? a - b : a * b
}

/** Masks and draws are as long as what they stand beside. */
function evaluateAll(args: readonly Expr[]): Float32Array[] {
  const length = args.filter(({ op }) => op !== 'mask' && op !== 'random').map(evaluate)[0]!.length
  return args.map((arg) => {
    if (arg.op === 'mask') return Float32Array.from(maskOf(arg, length))
    return arg.op === 'random' ? Float32Array.from(drawsOf(arg, length)) : evaluate(arg)
  })
}

function clamp(x: number, to: number, by: number): number {
  const distance = Math.fround(x - to)
  if (Number.isNaN(distance)) return distance
  return Math.abs(distance) > by ? to + Math.sign(distance) * by : x
}

function elect(
  { by = 'sum', zero, weights }: Extract<Expr, { op: 'elect' }>,
  values: readonly number[],
  of: number | undefined,
): number {
  const sum = of ?? values.reduce((a, b) => Math.fround(a + b))
  const votes = by === 'count' ? values.reduce((total, x) => total + (Math.sign(x) || 0), 0) : sum
  const sign = Math.sign(votes) || (zero ? 1 : 0)
  const elected = [...values.keys()].filter((t) => values[t] !== 0 && (by === 'any' || values[t]! * sign > 0))
  if (Number.isNaN(sum)) return sum
  const total = elected.reduce((a, t) => Math.fround(a + values[t]!), 0)
  const weight = elected.reduce((a, t) => Math.fround(a + Math.fround(weights?.[t] ?? 1)), 0)
  return total / (weights?.length === 0 || weight === 0 ? 1 : weight)
}

function graft(cpt: number, base: number, post: number, lambda: number): number {
  if (post === base) return cpt
  if (lambda === 1 && cpt === base) return post
  return cpt + Math.fround(lambda * Math.fround(post - base))
}
