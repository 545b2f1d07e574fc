import type { FloatDType } from '@polygraft/tensor'
import {
  canonicalValue,
  castValue,
  decodeWord,
  encodeWord,
  type Keep,
  type Precision,
} from './_scalar-formats.js'
import {
  type Code,
  doWhile,
  F32,
  F64,
  f32,
  f64,
  get,
  I32,
  i32,
  i64,
  moduleOfTypes,
  select,
  set,
} from './_wasm.js'
import type { Kernel, KernelNode } from './kernel.js'

/*
 * A kernel as a WebAssembly loop over single elements: what `_codegen.ts` does on lanes of F32, for F64 as well. An output is
 * computed in F64 where it is stored so, else in F32; a node that both need is computed in both.
 */

/** What the loop leaves of each output, I32 each, from `counters` on. Unit: elements. */
export const COUNTERS = { changed: 0, swallowed: 1, notFinite: 2, end: 3 } as const

/** Where a compiled kernel finds its scalars (F64, from byte 0) and ends (I32), and leaves COUNTERS of each output. */
export function scalarLayout({ scalars, ends, outputs }: Kernel) {
  const endsAt = scalars.length * 8
  const counters = endsAt + ends.length * 4
  return { ends: endsAt, counters, end: counters + outputs.length * COUNTERS.end * 4 }
}

/** The loop as it is being written. */
interface Loop {
  readonly kernel: Kernel
  readonly before: Code[]
  readonly turn: Code[]
  readonly after: Code[]
  readonly params: number
  /** Types of the locals so far. */
  readonly types: number[]
  readonly keep: Keep
  /** `make()` where `key` is new, else what it gave the first time. */
  once(key: string, make: () => Code): Code
}

const TYPES = { i32: I32, f32: F32, f64: F64 }
const FLOATS = { F32: f32, F64: f64 }
const TYPE_OF = { F32: 'f32', F64: 'f64' } as const
const LOG2_BYTES = { BF16: 1, F16: 1, F32: 2, F64: 3 }

/** `run(count, address of each input, address of each output)`: at least one element. */
export function generateScalar(kernel: Kernel): Uint8Array<ArrayBuffer> {
  const loop = createLoop(kernel)
  const index = newLocal(loop, 'i32')
  const layout = scalarLayout(kernel)
  for (const [output, { node: of, dtype }] of kernel.outputs.entries()) {
    const bytes = stored(loop, of, dtype)
    loop.turn.push(store(dtype, address(index, kernel.inputs.length + output, dtype), bytes))
    const counters = layout.counters + output * COUNTERS.end * 4
    accumulate(loop, counters + COUNTERS.notFinite * 4, isNotFinite(dtype, bytes))
    const node = kernel.nodes[of]!
    if (node.op !== 'graft') continue
    const changed = loop.keep.i32(i32.isZero(value(loop, precisionOf(dtype), node.same)))
    const swallowed = i32.and(changed, isSame(dtype, bytes, stored(loop, node.cpt, dtype)))
    accumulate(loop, counters + COUNTERS.changed * 4, changed)
    accumulate(loop, counters + COUNTERS.swallowed * 4, swallowed)
  }
  const turn = [...loop.turn.flat(), ...set(index, i32.add(get(index), i32.const(1)))]
  const loops = doWhile(turn, i32.ltU(get(index), get(0)))
  return moduleOfTypes(loop.params, loop.types, [...loop.before.flat(), ...loops, ...loop.after.flat()])
}

function createLoop(kernel: Kernel): Loop {
  const memo = new Map<string, Code>()
  const keepAs = (type: keyof Keep) => (code: Code) => keepIn(loop, type, code)
  const loop: Loop = {
    kernel,
    before: [],
    turn: [],
    after: [],
    params: 1 + kernel.inputs.length + kernel.outputs.length,
    types: [],
    keep: { i32: keepAs('i32'), f32: keepAs('f32'), f64: keepAs('f64') },
    once(key, make) {
      const code = memo.get(key) ?? make()
      memo.set(key, code)
      return code
    },
  }
  return loop
}

function newLocal({ params, types }: Loop, type: keyof Keep): number {
  return params + types.push(TYPES[type]) - 1
}

function keepIn(loop: Loop, type: keyof Keep, code: Code, when: 'before' | 'turn' = 'turn'): Code {
  const local = newLocal(loop, type)
  loop[when].push(set(local, code))
  return get(local)
}

/** The element of a tile: inputs first, then outputs. */
function address(index: number, tile: number, dtype: FloatDType): Code {
  return i32.add(get(1 + tile), i32.shl(get(index), i32.const(LOG2_BYTES[dtype])))
}

function precisionOf(dtype: FloatDType): Precision {
  return dtype === 'F64' ? 'F64' : 'F32'
}

function scalar(loop: Loop, precision: Precision, index: number): Code {
  return loop.once(`scalar ${precision} ${index}`, () => {
    const wide = f64.load(i32.const(0), index * 8)
    return keepIn(loop, TYPE_OF[precision], precision === 'F64' ? wide : f32.ofF64(wide), 'before')
  })
}

/** A node's value in a precision; of `equal`, which is a mask, an I32. */
function value(loop: Loop, precision: Precision, index: number): Code {
  const node = loop.kernel.nodes[index]!
  const type = node.op === 'equal' ? 'i32' : TYPE_OF[precision]
  return loop.once(`node ${precision} ${index}`, () => loop.keep[type](compute(loop, precision, node)))
}

function compute(loop: Loop, precision: Precision, node: KernelNode): Code {
  const ops = FLOATS[precision]
  const of = (index: number) => value(loop, precision, index)
  const by = (index: number) => scalar(loop, precision, index)
  switch (node.op) {
    case 'input':
      return input(loop, precision, node.index)
    case 'equal':
      return ops.eq(of(node.a), of(node.b))
    case 'scale':
      return ops.mul(by(node.scalar), of(node.a))
    case 'cast':
      return castValue(loop.keep, precision, node.dtype, of(node.a))
    case 'ratio': {
      const isGuarded = ops.le(ops.abs(of(node.b)), by(node.scalar))
      return select(ops.const(1), ops.div(of(node.a), of(node.b)), isGuarded)
    }
    case 'clamp': {
      const [a, b, delta, most] = [of(node.a), of(node.b), of(node.delta), by(node.scalar)]
      const signed = select(ops.neg(most), most, ops.lt(delta, ops.const(0)))
      const clamped = select(ops.add(b, signed), a, ops.gt(ops.abs(delta), most))
      return select(clamped, delta, ops.eq(delta, delta))
    }
    case 'keep': {
      const size = loop.keep[TYPE_OF[precision]](ops.abs(of(node.b)))
      const isLate = i32.isZero(i32.ltS(position(loop), end(loop, node.end)))
      const isDropped = i32.or(ops.lt(size, by(node.scalar)), i32.and(ops.eq(size, by(node.scalar)), isLate))
      return select(ops.const(0), of(node.a), isDropped)
    }
    case 'select':
      return select(of(node.a), of(node.b), ops.ne(of(node.mask), ops.const(0)))
    case 'elect':
      return elect(loop, precision, node)
    case 'graft': {
      const by = node.scalar === undefined ? undefined : scalar(loop, precision, node.scalar)
      const delta = by ? ops.mul(by, of(node.delta)) : of(node.delta)
      const moved = ops.add(of(node.cpt), delta)
      const grafted = by ? moved : select(of(node.post), moved, ops.eq(of(node.cpt), of(node.base)))
      return select(of(node.cpt), grafted, of(node.same))
    }
    default:
      return ops[node.op](of(node.a), of(node.b))
  }
}

/** The element's index in the tile. */
function position({ params }: Loop): Code {
  return get(params) // the first local
}

function end(loop: Loop, index: number): Code {
  const at = scalarLayout(loop.kernel).ends + index * 4
  return loop.once(`end ${index}`, () => keepIn(loop, 'i32', i32.load(i32.const(0), at), 'before'))
}

function input(loop: Loop, precision: Precision, index: number): Code {
  const dtype = loop.kernel.inputs[index]!
  const own = precisionOf(dtype)
  const asStored = loop.once(`input ${index}`, () => {
    const at = address(loop.params, index, dtype)
    const of = is16(dtype) ? decodeWord(loop.keep, dtype, i32.load16(at)) : FLOATS[own].load(at)
    return loop.keep[TYPE_OF[own]](of)
  })
  if (own === precision) return asStored
  return precision === 'F64' ? f64.ofF32(asStored) : f32.ofF64(asStored)
}

type Elect = Extract<KernelNode, { op: 'elect' }>

/** The mean of the elected elements, as `reference.ts` has it. */
function elect(loop: Loop, precision: Precision, node: Elect): Code {
  const ops = FLOATS[precision]
  const keep = loop.keep[TYPE_OF[precision]]
  const zero = ops.const(0)
  const args = node.args.map((arg) => value(loop, precision, arg))
  const sum = value(loop, precision, node.sum)
  const votes = node.by === 'count' ? keep(ops.fromI32(countSigns(precision, args))) : sum
  const isPositive = loop.keep.i32(node.positive ? i32.isZero(ops.lt(votes, zero)) : ops.gt(votes, zero))
  const isNegative = loop.keep.i32(ops.lt(votes, zero))
  let [total, weight] = [zero, zero]
  for (const [t, x] of args.entries()) {
    const agrees = loop.keep.i32(
      node.by === 'any'
        ? ops.ne(x, zero)
        : i32.or(i32.and(isPositive, ops.gt(x, zero)), i32.and(isNegative, ops.lt(x, zero))),
    )
    total = keep(select(ops.add(total, x), total, agrees))
    if (node.weights === 'none') continue
    const own = node.weights === 'equal' ? ops.const(1) : scalar(loop, precision, node.weights[t]!)
    weight = keep(select(ops.add(weight, own), weight, agrees))
  }
  const divisor = select(ops.const(1), weight, ops.eq(weight, zero))
  return select(node.weights === 'none' ? total : ops.div(total, divisor), sum, ops.eq(sum, sum))
}

/** How many more of the arguments are above 0 than below. */
function countSigns(precision: Precision, args: readonly Code[]): Code {
  const { gt, lt, const: constant } = FLOATS[precision]
  const signOf = (x: Code) => i32.sub(gt(x, constant(0)), lt(x, constant(0)))
  return args.map(signOf).reduce((votes, sign) => i32.add(votes, sign))
}

/** A node as it is stored: a 16-bit word as an I32, or a float. */
function stored(loop: Loop, index: number, dtype: FloatDType): Code {
  const precision = precisionOf(dtype)
  return loop.once(`stored ${index} ${dtype}`, () => {
    const of = value(loop, precision, index)
    if (is16(dtype)) return encodeWord(loop.keep, precision, dtype, of)
    return loop.keep[TYPE_OF[precision]](canonicalValue(precision, of))
  })
}

function store(dtype: FloatDType, at: Code, bytes: Code): Code {
  return is16(dtype) ? i32.store16(at, bytes) : FLOATS[dtype].store(at, bytes)
}

function isSame(dtype: FloatDType, a: Code, b: Code): Code {
  if (is16(dtype)) return i32.eq(a, b)
  if (dtype === 'F32') return i32.eq(i32.bitsOfF32(a), i32.bitsOfF32(b))
  return i64.eq(i64.bitsOfF64(a), i64.bitsOfF64(b))
}

function isNotFinite(dtype: FloatDType, bytes: Code): Code {
  if (is16(dtype)) {
    const largest = dtype === 'BF16' ? 0x7f7f : 0x7bff
    return i32.gtS(i32.and(bytes, i32.const(0x7fff)), i32.const(largest))
  }
  const { lt, abs, const: constant } = FLOATS[dtype]
  return i32.isZero(lt(abs(bytes), constant(Number.POSITIVE_INFINITY)))
}

/** Adds an I32 to the sum that is left at address `at`; it begins at 0. */
function accumulate(loop: Loop, at: number, added: Code): void {
  const sum = newLocal(loop, 'i32')
  loop.turn.push(set(sum, i32.add(get(sum), added)))
  loop.after.push(i32.store(i32.const(0), get(sum), at))
}

function is16(dtype: FloatDType): dtype is 'BF16' | 'F16' {
  return dtype === 'BF16' || dtype === 'F16'
}
