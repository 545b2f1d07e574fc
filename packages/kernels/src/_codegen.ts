import type { FloatDType } from '@polygraft/tensor'
import { canonical16, canonicalF32, castLanes, decodeBf16, decodeF16, type Nan, pack16 } from './_lanes.js'
import {
  blendHalves,
  type Code,
  doWhile,
  f32x4,
  get,
  i16x8,
  i32,
  i32x4,
  moduleOf,
  set,
  shuffle32,
  v128,
} from './_wasm.js'
import type { Kernel, KernelNode } from './kernel.js'

/** Elements per step of the loop: two groups of four lanes. */
export const STEP = 8
/** Steps per call: the counters have 16 bits a lane. */
export const MAX_STEPS = 0x8000
const SIGN = 0x80000000
const ONE = 127 << 23

/**
 * 'exact' does what is defined. 'finite' gives the same wherever no output is NaN or infinite, and spares what NaN takes. Both
 * leave the largest magnitude of each output, by which to see whether it is so.
 */
export type Mode = 'exact' | 'finite'

/**
 * Where a compiled kernel finds its scalars (F32, from byte 0) and, after them, its ends (twice the element's number from the
 * call's first, I32), and leaves its counters, in bytes from the memory's start.
 */
interface Layout {
  readonly outputs: readonly OutputLayout[]
  /** First byte that is free for tiles. */
  readonly end: number
}

interface OutputLayout {
  /** Of a graft: 8 x U16 of lanes where post == base, then 8 x U16 of those stored as cpt is. */
  readonly counters: number | undefined
  /** The largest magnitudes, as bits: 8 x U16 or 4 x U32. */
  readonly largest: number
  /** Such bits from which on an output is not finite. */
  readonly notFinite: number
  readonly largestBits: 16 | 32
}

export function layoutOf(kernel: Kernel): Layout {
  let end = Math.ceil(((kernel.scalars.length + kernel.ends.length) * 4) / 16) * 16
  const take = (bytes: number) => {
    end += bytes
    return end - bytes
  }
  const outputs = kernel.outputs.map(({ node, dtype }): OutputLayout => {
    const counters = kernel.nodes[node]!.op === 'graft' ? take(32) : undefined
    return { counters, largest: take(16), ...boundOf(kernel, dtype) }
  })
  return { outputs, end }
}

/**
 * Magnitudes are looked at as they are stored where that tells NaN. Rounding to BF16 may lose a NaN with bits in its lower half,
 * which none has that comes from BF16 inputs; from others, F32 values are looked at, and those that round up to infinity count.
 */
function boundOf({ inputs }: Kernel, dtype: FloatDType): Pick<OutputLayout, 'notFinite' | 'largestBits'> {
  if (dtype === 'F16') return { notFinite: 0x7c00, largestBits: 16 }
  if (dtype === 'F32') return { notFinite: 0x7f800000, largestBits: 32 }
  if (inputs.every((input) => input === 'BF16')) return { notFinite: 0x7f80, largestBits: 16 }
  return { notFinite: 0x7f7f8000, largestBits: 32 }
}

/**
 * The kernel as a WebAssembly module: `run(steps, address of each input, address of each output)`, all addresses
 * multiples of 16, 1 to MAX_STEPS steps of STEP elements, of which a 'finite' one does an even number. One loop: every value lives
 * in a local, nothing intermediate is stored. Needs F32, F16 or BF16 throughout.
 */
export function generate(kernel: Kernel, mode: Mode): Uint8Array<ArrayBuffer> {
  const { outputs } = layoutOf(kernel)
  const loop = createLoop(kernel, mode)
  const steps = stepsPerTurn(kernel, mode)
  for (let step = 0; step < steps; step++)
    for (const [i, { counters, largest }] of outputs.entries()) {
      writeOutput(loop, i, step)
      if (counters !== undefined) countGrafted(loop, i, step, counters)
      noteLargest(loop, i, step, largest)
    }
  const { offset, end, offset32 } = loop
  const turn = [
    ...set(offset32, i32.shl(get(offset), i32.const(1))),
    ...loop.turn.flat(),
    ...set(offset, i32.add(get(offset), i32.const(steps * STEP * 2))),
  ]
  const body = [
    ...loop.before.flat(),
    ...set(end, i32.shl(get(0), i32.const(4))), // STEP * 2 bytes a step
    ...doWhile(turn, i32.ltU(get(offset), get(end))),
    ...loop.after.flat(),
  ]
  return moduleOf(loop.params, 3, loop.locals, body)
}

/** Nodes up to which two steps a turn are worth their code. */
const MAX_UNROLLED = 40

/** Steps in a turn of the loop. Two spare half of what a turn takes beside its arithmetic. */
export function stepsPerTurn({ nodes, outputs }: Kernel, mode: Mode): number {
  return mode === 'finite' && nodes.length + outputs.length <= MAX_UNROLLED ? 2 : 1
}

/** The loop as it is being written. */
interface Loop {
  readonly kernel: Kernel
  readonly nan: Nan
  /** Lanes of F32 tiles go in the order of the 16-bit tiles beside them (group 0 even, 1 odd); alone they stay. */
  readonly split: boolean
  readonly before: Code[]
  readonly turn: Code[]
  readonly after: Code[]
  readonly params: number
  /** i32 locals: bytes into the 16-bit tiles, where that ends, and bytes into the F32 tiles. */
  readonly offset: number
  readonly end: number
  readonly offset32: number
  /** Locals of what is accumulated, by the address where it is left. */
  readonly sums: Map<number, number>
  /** v128 locals so far; they follow the i32 ones. */
  locals: number
  /** `make()` where `key` is new, else what it gave the first time. */
  once(key: string, make: () => Code): Code
}

function createLoop(kernel: Kernel, mode: Mode): Loop {
  const memo = new Map<string, Code>()
  const params = 1 + kernel.inputs.length + kernel.outputs.length
  return {
    kernel,
    nan: mode === 'exact' ? 'canonical' : 'any',
    split: [...kernel.inputs, ...kernel.outputs.map((output) => output.dtype)].some(is16),
    before: [],
    turn: [],
    after: [],
    params,
    offset: params,
    end: params + 1,
    offset32: params + 2,
    sums: new Map(),
    locals: 0,
    once(key, make) {
      const code = memo.get(key) ?? make()
      memo.set(key, code)
      return code
    },
  }
}

function newLocal(loop: Loop): number {
  return loop.params + 3 + loop.locals++
}

/** Computes `value` before the loop, or in each turn; the result reads it. */
function keep(loop: Loop, value: Code, when: 'before' | 'turn' = 'turn'): Code {
  const local = newLocal(loop)
  loop[when].push(set(local, value))
  return get(local)
}

function scalar(loop: Loop, index: number): Code {
  return loop.once(`scalar ${index}`, () => keep(loop, v128.load32Splat(i32.const(0), index * 4), 'before'))
}

/** Address of the turn's elements of a tile: inputs first, then outputs. */
function address(loop: Loop, tile: number, dtype: FloatDType): Code {
  return i32.add(get(1 + tile), get(is16(dtype) ? loop.offset : loop.offset32))
}

function load(loop: Loop, index: number, at: number): Code {
  const from = address(loop, index, loop.kernel.inputs[index]!)
  return loop.once(`load ${index} ${at}`, () => keep(loop, v128.load(from, at)))
}

/** Four lanes of a node: an F32 value, or a mask. Groups 0 and 1 are of a turn's first step, 2 and 3 of the second. */
function value(loop: Loop, index: number, group: number): Code {
  return loop.once(`node ${index} ${group}`, () =>
    keep(loop, compute(loop, loop.kernel.nodes[index]!, group)),
  )
}

function compute(loop: Loop, node: KernelNode, group: number): Code {
  const of = (index: number) => value(loop, index, group)
  switch (node.op) {
    case 'input':
      return input(loop, node.index, group)
    case 'equal':
      return f32x4.eq(of(node.a), of(node.b))
    case 'scale':
      return f32x4.mul(scalar(loop, node.scalar), of(node.a))
    case 'cast':
      return castLanes((code) => keep(loop, code), node.dtype, of(node.a))
    case 'ratio': {
      const guarded = f32x4.le(f32x4.abs(of(node.b)), scalar(loop, node.scalar))
      return v128.select(v128.splat(ONE), f32x4.div(of(node.a), of(node.b)), guarded)
    }
    case 'clamp':
      return clamp(loop, node, group)
    case 'keep':
      return keepLargest(loop, node, group)
    case 'select':
      return v128.select(of(node.a), of(node.b), f32x4.ne(of(node.mask), v128.splat(0)))
    case 'elect':
      return elect(loop, node, group)
    case 'graft':
      return graft(loop, node, group)
    default:
      return f32x4[node.op](of(node.a), of(node.b))
  }
}

function input(loop: Loop, index: number, group: number): Code {
  const dtype = loop.kernel.inputs[index]!
  const [step, odd] = [group >> 1, group & 1]
  if (dtype === 'BF16') return decodeBf16(words(loop, index, step), odd)
  if (dtype === 'F16') return decodeF16((code) => keep(loop, code), words(loop, index, step), odd)
  if (!loop.split) return load(loop, index, group * 16)
  const lanes = odd ? [1, 3, 5, 7] : [0, 2, 4, 6]
  return shuffle32(load(loop, index, step * 32), load(loop, index, step * 32 + 16), lanes)
}

/** A step's eight elements of a 16-bit input, as they are stored. */
function words(loop: Loop, index: number, step: number): Code {
  return load(loop, index, step * 16)
}

/** +0 where the magnitude is below the threshold, or at it from the end on. */
function keepLargest(loop: Loop, node: Extract<KernelNode, { op: 'keep' }>, group: number): Code {
  const size = keep(loop, f32x4.abs(value(loop, node.b, group)))
  const threshold = scalar(loop, node.scalar)
  const at = (loop.kernel.scalars.length + node.end) * 4
  const end = loop.once(`end ${node.end}`, () => keep(loop, v128.load32Splat(i32.const(0), at), 'before'))
  const early = i32x4.gtS(end, position(loop, group))
  const late = v128.andnot(f32x4.eq(size, threshold), early)
  return v128.andnot(value(loop, node.a, group), v128.or(f32x4.lt(size, threshold), late))
}

function clamp(loop: Loop, node: Extract<KernelNode, { op: 'clamp' }>, group: number): Code {
  const [a, b, delta] = [node.a, node.b, node.delta].map((index) => value(loop, index, group)) as [
    Code,
    Code,
    Code,
  ]
  const by = scalar(loop, node.scalar)
  const sign = v128.and(f32x4.lt(delta, v128.splat(0)), v128.splat(SIGN))
  const clamped = v128.select(f32x4.add(b, v128.xor(by, sign)), a, f32x4.gt(f32x4.abs(delta), by))
  return v128.select(clamped, delta, f32x4.eq(delta, delta))
}

type Elect = Extract<KernelNode, { op: 'elect' }>

/**
 * With the elected sign taken off all lanes, those above 0 have it: their sum by their weight, and the sign put back. Where none
 * is elected nothing may be, so that there the mean is masked.
 */
function elect(loop: Loop, node: Elect, group: number): Code {
  const zero = v128.splat(0)
  const sum = value(loop, node.sum, group)
  const isAny = node.by === 'any'
  const votes = node.by === 'count' ? countSigns(loop, node, group) : sum
  const isTie = loop.once(`tie ${node.by} ${node.args} ${node.sum} ${group}`, () =>
    keep(loop, node.by === 'count' ? i32x4.eq(votes, zero) : f32x4.eq(votes, zero)),
  )
  const sign = isAny ? zero : keep(loop, v128.andnot(v128.and(votes, v128.splat(SIGN)), isTie))
  let total: Code | undefined
  const agreeing = node.args.map((arg) => {
    const x = keep(loop, v128.xor(value(loop, arg, group), sign))
    const agrees = keep(loop, isAny ? f32x4.ne(x, zero) : f32x4.gt(x, zero))
    const elected = v128.and(x, agrees)
    total = keep(loop, total ? f32x4.add(total, elected) : elected)
    return agrees
  })
  const divided = divideByWeight(loop, node, total!, agreeing)
  const none = node.positive ? f32x4.eq(total!, zero) : v128.or(f32x4.eq(total!, zero), isTie)
  const mean = isAny ? divided : v128.andnot(v128.xor(divided, sign), none)
  return v128.select(mean, sum, f32x4.eq(sum, sum))
}

/** How many more of the arguments are above 0 than below. Masks are -1, so subtracting them counts. */
function countSigns(loop: Loop, { args }: Elect, group: number): Code {
  const zero = v128.splat(0)
  return args.reduce((votes, arg) => {
    const x = value(loop, arg, group)
    const positive = i32x4.sub(votes, f32x4.gt(x, zero))
    return keep(loop, i32x4.add(positive, f32x4.lt(x, zero)))
  }, zero)
}

function divideByWeight(loop: Loop, { weights }: Elect, total: Code, agreeing: readonly Code[]): Code {
  if (weights === 'none') return total
  const zero = v128.splat(0)
  if (weights === 'equal') {
    const count = agreeing.reduce((sum, agrees) => keep(loop, i32x4.sub(sum, agrees)), zero)
    return f32x4.div(total, f32x4.convertI32(i32x4.maxS(count, v128.splat(1))))
  }
  const weight = agreeing.reduce(
    (sum, agrees, t) => keep(loop, f32x4.add(sum, v128.and(scalar(loop, weights[t]!), agrees))),
    zero,
  )
  return f32x4.div(total, v128.select(v128.splat(127 << 23), weight, f32x4.eq(weight, zero)))
}

/** Twice the number of each lane's element, as `offset` counts. */
function position(loop: Loop, group: number): Code {
  const [step, odd] = [group >> 1, group & 1]
  const lanes = [0, 1, 2, 3].map((lane) => 2 * (step * STEP + (loop.split ? 2 * lane + odd : lane + 4 * odd)))
  return loop.once(`position ${group}`, () =>
    keep(loop, i32x4.add(i32x4.splat(get(loop.offset)), v128.const32(lanes))),
  )
}

type Graft = Extract<KernelNode, { op: 'graft' }>

function graft(loop: Loop, node: Graft, group: number): Code {
  const of = (index: number) => value(loop, index, group)
  const moved = movedBy(loop, node, group)
  const grafted =
    node.scalar === undefined ? v128.select(of(node.post), moved, atBase(loop, node, group)) : moved
  return v128.select(of(node.cpt), grafted, of(node.same))
}

/** cpt + lambda * delta. Experts with equal lambdas share the product. */
function movedBy(loop: Loop, { cpt, delta, scalar: by }: Graft, group: number): Code {
  const step = value(loop, delta, group)
  const scaled =
    by === undefined
      ? step
      : loop.once(`step ${delta} ${by} ${group}`, () => keep(loop, f32x4.mul(scalar(loop, by), step)))
  return f32x4.add(value(loop, cpt, group), scaled)
}

function atBase(loop: Loop, { cpt, base }: Graft, group: number): Code {
  return f32x4.eq(value(loop, cpt, group), value(loop, base, group))
}

/**
 * A graft of 16-bit words among which its result is often chosen: as words, eight lanes at a time. Not where NaN is to become
 * canonical.
 */
function graftWords(loop: Loop, node: Graft, dtype: 'BF16' | 'F16', step: number): Code | undefined {
  const storedAs = (index: number) => {
    const of = loop.kernel.nodes[index]!
    return of.op === 'input' && loop.kernel.inputs[of.index] === dtype
      ? words(loop, of.index, step)
      : undefined
  }
  const [cpt, post] = [storedAs(node.cpt), storedAs(node.post)]
  if (loop.nan === 'canonical' || !cpt || !post) return undefined
  const [even, odd] = groupsOf(step).map((group) => keep(loop, movedBy(loop, node, group)))
  const moved = pack16((code) => keep(loop, code), dtype, even!, odd!, loop.nan)
  const grafted =
    node.scalar === undefined
      ? v128.select(
          post,
          moved,
          keep(
            loop,
            mask16(loop, (group) => atBase(loop, node, group), step),
          ),
        )
      : moved
  return v128.select(cpt, grafted, sameWords(loop, node, step))
}

/** Where post == base, eight lanes. */
function sameWords(loop: Loop, { same }: Graft, step: number): Code {
  return loop.once(`same ${same} ${step}`, () =>
    keep(
      loop,
      mask16(loop, (group) => value(loop, same, group), step),
    ),
  )
}

/** The numbers of a step's two groups. */
function groupsOf(step: number): readonly [number, number] {
  return [2 * step, 2 * step + 1]
}

/** A node's lanes as they are stored: one v128 of 16-bit words in order, or the two groups of F32. */
function encoded(loop: Loop, index: number, dtype: FloatDType, step: number): readonly Code[] {
  const node = loop.kernel.nodes[index]!
  const { nan } = loop
  const of = (group: number) => value(loop, index, group)
  if (!is16(dtype)) {
    if (nan === 'any') return groupsOf(step).map(of)
    return groupsOf(step).map((group) =>
      loop.once(`stored ${index} ${group}`, () => keep(loop, canonicalF32(of(group)))),
    )
  }
  const make = () => {
    if (node.op === 'input' && loop.kernel.inputs[node.index] === dtype) {
      const stored = words(loop, node.index, step)
      return nan === 'any' ? stored : canonical16(dtype, stored)
    }
    const grafted = node.op === 'graft' ? graftWords(loop, node, dtype, step) : undefined
    const [even, odd] = groupsOf(step)
    return grafted ?? pack16((code) => keep(loop, code), dtype, of(even), of(odd), nan)
  }
  return [loop.once(`stored ${index} ${dtype} ${step}`, () => keep(loop, make()))]
}

function writeOutput(loop: Loop, output: number, step: number): void {
  const { node, dtype } = loop.kernel.outputs[output]!
  const [first, second] = encoded(loop, node, dtype, step) as [Code, Code?]
  const store = (word: Code, at: number) =>
    loop.turn.push(v128.store(address(loop, loop.kernel.inputs.length + output, dtype), word, at))
  const at = step * (second ? 32 : 16)
  store(second && loop.split ? shuffle32(first, second, [0, 4, 1, 5]) : first, at)
  if (second) store(loop.split ? shuffle32(first, second, [2, 6, 3, 7]) : second, at + 16)
}

/** Counts the lanes where post == base, and those whose stored output is the stored cpt. */
function countGrafted(loop: Loop, output: number, step: number, at: number): void {
  const { node: index, dtype } = loop.kernel.outputs[output]!
  const node = loop.kernel.nodes[index] as Graft
  const [first, second] = encoded(loop, index, dtype, step) as [Code, Code?]
  const [cptFirst, cptSecond] = encoded(loop, node.cpt, dtype, step) as [Code, Code?]
  const equal =
    second && cptSecond
      ? mask16(loop, (group) => (group & 1 ? i32x4.eq(second, cptSecond) : i32x4.eq(first, cptFirst)), step)
      : i16x8.eq(first, cptFirst)
  // Masks are -1, so subtracting them counts.
  accumulate(loop, at, i16x8.sub, sameWords(loop, node, step))
  accumulate(loop, at + 16, i16x8.sub, equal)
}

function noteLargest(loop: Loop, output: number, step: number, at: number): void {
  const { node, dtype } = loop.kernel.outputs[output]!
  const { largestBits } = boundOf(loop.kernel, dtype)
  if (largestBits === 16) {
    const [stored] = encoded(loop, node, dtype, step)
    accumulate(loop, at, i16x8.maxS, v128.and(stored!, v128.splat(0x7fff7fff)))
  } else
    for (const group of groupsOf(step)) accumulate(loop, at, i32x4.maxS, f32x4.abs(value(loop, node, group)))
}

/** The masks of a step's two groups as one of eight lanes in the order of the elements. */
function mask16(loop: Loop, of: (group: number) => Code, step: number): Code {
  const [first, second] = groupsOf(step).map(of)
  return loop.split ? blendHalves(first!, second!) : i16x8.narrowI32x4S(first!, second!)
}

/** Takes `value` into the sum (or what `op` makes) that is left at address `at`; it begins at 0. */
function accumulate(loop: Loop, at: number, op: (sum: Code, value: Code) => Code, value: Code): void {
  const sum = loop.sums.get(at) ?? newLocal(loop)
  if (!loop.sums.has(at)) loop.after.push(v128.store(i32.const(0), get(sum), at))
  loop.sums.set(at, sum)
  loop.turn.push(set(sum, op(get(sum), value)))
}

function is16(dtype: FloatDType): dtype is 'BF16' | 'F16' {
  return dtype === 'BF16' || dtype === 'F16'
}
