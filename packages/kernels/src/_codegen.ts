import type { FloatDType } from '@polygraft/tensor'
import { canonical16, canonicalF32, castLanes, decodeBf16, decodeF16, pack16 } from './_lanes.js'
import { type Code, doWhile, f32x4, get, i16x8, i32, i32x4, moduleOf, set, shuffle32, v128 } from './_wasm.js'
import type { Kernel, KernelNode } from './kernel.js'

/** Elements per turn of the loop: two groups of four lanes. */
export const STEP = 8
/** Turns per call: the counters have 16 bits a lane. */
export const MAX_TURNS = 0x8000
const SIGN = 0x80000000

/**
 * Where a compiled kernel finds its scalars (F32, from byte 0) and, after them, its ends (twice the element's number from the
 * call's first, I32), and leaves its counters, in bytes from the memory's start.
 */
interface Layout {
  /** Of each output that is a graft: 8 x U16 of lanes where post == base, then 8 x U16 of swallowed ones. */
  readonly counters: readonly (number | undefined)[]
  /** First byte that is free for tiles. */
  readonly end: number
}

export function layoutOf(kernel: Kernel): Layout {
  let end = Math.ceil(((kernel.scalars.length + kernel.ends.length) * 4) / 16) * 16
  const counters = kernel.outputs.map(({ node }) => {
    if (kernel.nodes[node]!.op !== 'graft') return undefined
    end += 32
    return end - 32
  })
  return { counters, end }
}

/**
 * The kernel as a WebAssembly module: `run(turns, address of each input, address of each output)`, all addresses
 * multiples of 16, 1 to MAX_TURNS turns of STEP elements. One loop: every value lives in a local, nothing intermediate
 * is stored. Needs F32, F16 or BF16 throughout.
 */
export function generate(kernel: Kernel): Uint8Array<ArrayBuffer> {
  const { counters } = layoutOf(kernel)
  const loop = createLoop(kernel)
  for (const i of kernel.outputs.keys()) {
    writeOutput(loop, i)
    if (counters[i] !== undefined) countGrafted(loop, i, counters[i])
  }
  const { offset, end, offset32 } = loop
  const turn = [
    ...set(offset32, i32.shl(get(offset), i32.const(1))),
    ...loop.turn.flat(),
    ...set(offset, i32.add(get(offset), i32.const(STEP * 2))),
  ]
  const body = [
    ...loop.before.flat(),
    ...set(end, i32.shl(get(0), i32.const(4))), // STEP * 2 bytes a turn
    ...doWhile(turn, i32.ltU(get(offset), get(end))),
    ...loop.after.flat(),
  ]
  return moduleOf(loop.params, 3, loop.locals, body)
}

/** The loop as it is being written. */
interface Loop {
  readonly kernel: Kernel
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
  /** v128 locals so far; they follow the i32 ones. */
  locals: number
  /** `make()` where `key` is new, else what it gave the first time. */
  once(key: string, make: () => Code): Code
}

function createLoop(kernel: Kernel): Loop {
  const memo = new Map<string, Code>()
  const params = 1 + kernel.inputs.length + kernel.outputs.length
  return {
    kernel,
    split: [...kernel.inputs, ...kernel.outputs.map((output) => output.dtype)].some(is16),
    before: [],
    turn: [],
    after: [],
    params,
    offset: params,
    end: params + 1,
    offset32: params + 2,
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

function isOne(loop: Loop, index: number): Code {
  return loop.once(`one ${index}`, () =>
    keep(loop, f32x4.eq(scalar(loop, index), v128.splat(127 << 23)), 'before'),
  )
}

/** Address of the turn's elements of a tile: inputs first, then outputs. */
function address(loop: Loop, tile: number, dtype: FloatDType): Code {
  return i32.add(get(1 + tile), get(is16(dtype) ? loop.offset : loop.offset32))
}

function load(loop: Loop, index: number, at: number): Code {
  const from = address(loop, index, loop.kernel.inputs[index]!)
  return loop.once(`load ${index} ${at}`, () => keep(loop, v128.load(from, at)))
}

/** Four lanes of a node: an F32 value, or a mask. */
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
      return v128.select(v128.splat(127 << 23), f32x4.div(of(node.a), of(node.b)), guarded)
    }
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
  if (dtype === 'BF16') return decodeBf16(load(loop, index, 0), group)
  if (dtype === 'F16') return decodeF16((code) => keep(loop, code), load(loop, index, 0), group)
  if (!loop.split) return load(loop, index, group * 16)
  const lanes = group === 0 ? [0, 2, 4, 6] : [1, 3, 5, 7]
  return shuffle32(load(loop, index, 0), load(loop, index, 16), lanes)
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
  const isTie = loop.once(`tie ${node.by} ${node.args} ${group}`, () =>
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
  const signed = v128.xor(divideByWeight(loop, node, total!, agreeing), sign)
  const mean = isAny || node.positive ? signed : v128.andnot(signed, isTie)
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
  const lanes = [0, 1, 2, 3].map((lane) => 2 * (loop.split ? 2 * lane + group : lane + 4 * group))
  return loop.once(`position ${group}`, () =>
    keep(loop, i32x4.add(i32x4.splat(get(loop.offset)), v128.const32(lanes))),
  )
}

/** Where post == base, -0 is added, which passes on every cpt. Experts with equal lambdas share that step. */
function graft(loop: Loop, node: Extract<KernelNode, { op: 'graft' }>, group: number): Code {
  const of = (index: number) => value(loop, index, group)
  const step = loop.once(`step ${node.delta} ${node.scalar} ${group}`, () => {
    const scaled = f32x4.mul(scalar(loop, node.scalar), of(node.delta))
    return keep(loop, v128.select(v128.splat(SIGN), scaled, of(node.same)))
  })
  const moved = f32x4.add(of(node.cpt), step)
  const atBase = v128.and(f32x4.eq(of(node.cpt), of(node.base)), isOne(loop, node.scalar))
  return v128.select(of(node.post), moved, v128.andnot(atBase, of(node.same)))
}

/** A node's lanes as they are stored: one v128 of 16-bit words in order, or the two groups of F32. */
function encoded(loop: Loop, index: number, dtype: FloatDType): readonly Code[] {
  const node = loop.kernel.nodes[index]!
  const of = (group: number) => value(loop, index, group)
  if (!is16(dtype))
    return [0, 1].map((group) =>
      loop.once(`stored ${index} ${group}`, () => keep(loop, canonicalF32(of(group)))),
    )
  const words = () =>
    node.op === 'input' && loop.kernel.inputs[node.index] === dtype
      ? canonical16(dtype, load(loop, node.index, 0))
      : pack16((code) => keep(loop, code), dtype, of(0), of(1))
  return [loop.once(`stored ${index} ${dtype}`, () => keep(loop, words()))]
}

function writeOutput(loop: Loop, output: number): void {
  const { node, dtype } = loop.kernel.outputs[output]!
  const [first, second] = encoded(loop, node, dtype) as [Code, Code?]
  const store = (word: Code, at: number) =>
    loop.turn.push(v128.store(address(loop, loop.kernel.inputs.length + output, dtype), word, at))
  store(second && loop.split ? shuffle32(first, second, [0, 4, 1, 5]) : first, 0)
  if (second) store(loop.split ? shuffle32(first, second, [2, 6, 3, 7]) : second, 16)
}

/** Counts the lanes where post == base, and those of the others whose stored output is the stored cpt. */
function countGrafted(loop: Loop, output: number, at: number): void {
  const { node: index, dtype } = loop.kernel.outputs[output]!
  const node = loop.kernel.nodes[index] as Extract<KernelNode, { op: 'graft' }>
  const [first, second] = encoded(loop, index, dtype) as [Code, Code?]
  const [cptFirst, cptSecond] = encoded(loop, node.cpt, dtype) as [Code, Code?]
  const same = loop.once(`same ${node.same}`, () =>
    keep(loop, mask16(loop, value(loop, node.same, 0), value(loop, node.same, 1))),
  )
  const equal =
    second && cptSecond
      ? mask16(loop, i32x4.eq(first, cptFirst), i32x4.eq(second, cptSecond))
      : i16x8.eq(first, cptFirst)
  count(loop, at, same)
  count(loop, at + 16, v128.andnot(equal, same))
}

/** The masks of the two groups as one of eight lanes in the order of the elements. */
function mask16(loop: Loop, first: Code, second: Code): Code {
  return loop.split ? v128.select(second, first, v128.splat(0xffff0000)) : i16x8.narrowI32x4S(first, second)
}

/** Adds 1 in each lane where `mask` is set (-1), and leaves the sums at address `at`. */
function count(loop: Loop, at: number, mask: Code): void {
  const sum = newLocal(loop)
  loop.turn.push(set(sum, i16x8.sub(get(sum), mask)))
  loop.after.push(v128.store(i32.const(0), get(sum), at))
}

function is16(dtype: FloatDType): dtype is 'BF16' | 'F16' {
  return dtype === 'BF16' || dtype === 'F16'
}
