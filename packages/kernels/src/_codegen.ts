import type { FloatDType } from '@polygraft/tensor'
import {
  canonical16,
  canonicalF32,
  castLanes,
  decodeBf16,
  decodeF16,
  type Emitter,
  pack16,
} from './_lanes.js'
import { type Code, doWhile, f32x4, get, i16x8, i32, i32x4, moduleOf, set, shuffle32, v128 } from './_wasm.js'
import type { Kernel, KernelNode } from './kernel.js'

/** Elements per turn of the loop: two groups of four lanes. */
export const STEP = 8
/** Turns per call: the counters have 16 bits a lane. */
export const MAX_TURNS = 0x8000

/** Where a compiled kernel finds its scalars (F32, from byte 0) and leaves its counters, in bytes from the memory's start. */
export interface Layout {
  /** Of each output: 8 x U16 of lanes that a graft left as they are, then 8 x U16 of swallowed ones. */
  readonly counters: readonly (number | undefined)[]
  /** First byte that is free for tiles. */
  readonly end: number
}

export function layoutOf(kernel: Kernel): Layout {
  let end = Math.ceil((kernel.scalars.length * 4) / 16) * 16
  const counters = kernel.outputs.map(({ node }) => {
    if (kernel.nodes[node]!.op !== 'graft') return undefined
    end += 32
    return end - 32
  })
  return { counters, end }
}

/**
 * The kernel as a WebAssembly module: `run(turns, address of each input, address of each output)`, all addresses
 * multiples of 16, turns from 1 to MAX_TURNS of STEP elements. One loop: every value lives in a local, nothing intermediate is
 * stored. Needs F32, F16 or BF16 throughout.
 */
export function generate(kernel: Kernel): Uint8Array<ArrayBuffer> {
  const { counters } = layoutOf(kernel)
  const pointers = kernel.inputs.length + kernel.outputs.length
  const [offset, end, offset32, firstV128] = [pointers + 1, pointers + 2, pointers + 3, pointers + 4]
  const before: Code[] = []
  const turn: Code[] = []
  const after: Code[] = []
  const memo = new Map<string, Code>()
  let locals = 0

  function keep(into: Code[], value: Code, index = firstV128 + locals++): Code {
    into.push(set(index, value))
    return get(index)
  }

  function once(key: string, make: () => Code): Code {
    const found = memo.get(key)
    if (found) return found
    const made = make()
    memo.set(key, made)
    return made
  }

  const e: Emitter = {
    let: (value) => keep(turn, value),
    constant: (bits) => once(`constant ${bits | 0}`, () => keep(before, i32x4.splat(i32.const(bits)))),
  }

  // Lanes of F32 tiles go in the order of the 16-bit tiles beside them; alone they stay as they are.
  const split = [...kernel.inputs, ...kernel.outputs.map((output) => output.dtype)].some(is16)
  const scalar = (i: number) => once(`scalar ${i}`, () => keep(before, v128.load32Splat(i32.const(0), i * 4)))
  const isOne = (i: number) =>
    once(`one ${i}`, () => keep(before, f32x4.eq(scalar(i), e.constant(127 << 23))))
  const pointer = (tile: number) => get(tile + 1)
  const address = (tile: number, dtype: FloatDType) =>
    i32.add(pointer(tile), get(is16(dtype) ? offset : offset32))
  const load = (tile: number, dtype: FloatDType, at: number) =>
    once(`load ${tile} ${at}`, () => e.let(v128.load(address(tile, dtype), at)))

  function input(index: number, group: number): Code {
    const dtype = kernel.inputs[index]!
    if (dtype === 'BF16') return decodeBf16(e, load(index, dtype, 0), group)
    if (dtype === 'F16') return decodeF16(e, load(index, dtype, 0), group)
    if (!split) return load(index, dtype, group * 16)
    const lanes = group === 0 ? [0, 2, 4, 6] : [1, 3, 5, 7]
    return shuffle32(load(index, dtype, 0), load(index, dtype, 16), lanes)
  }

  function value(index: number, group: number): Code {
    return once(`node ${index} ${group}`, () => e.let(compute(kernel.nodes[index]!, group)))
  }

  function compute(node: KernelNode, group: number): Code {
    const of = (index: number) => value(index, group)
    switch (node.op) {
      case 'input':
        return input(node.index, group)
      case 'equal':
        return f32x4.eq(of(node.a), of(node.b))
      case 'scale':
        return f32x4.mul(scalar(node.scalar), of(node.a))
      case 'cast':
        return castLanes(e, node.dtype, of(node.a))
      case 'ratio': {
        const guarded = f32x4.le(f32x4.abs(of(node.b)), scalar(node.scalar))
        return v128.select(e.constant(127 << 23), f32x4.div(of(node.a), of(node.b)), guarded)
      }
      case 'graft':
        return graft(node, group)
      default:
        return f32x4[node.op](of(node.a), of(node.b))
    }
  }

  /** Where post == base, -0 is added: that passes on every cpt. Experts that share base, post and lambda share the step. */
  function graft(node: Extract<KernelNode, { op: 'graft' }>, group: number): Code {
    const of = (index: number) => value(index, group)
    const step = once(`step ${node.delta} ${node.scalar} ${group}`, () => {
      const scaled = f32x4.mul(scalar(node.scalar), of(node.delta))
      return e.let(v128.select(e.constant(0x80000000), scaled, of(node.same)))
    })
    const moved = f32x4.add(of(node.cpt), step)
    const atBase = e.let(v128.and(f32x4.eq(of(node.cpt), of(node.base)), isOne(node.scalar)))
    return v128.select(of(node.post), moved, v128.andnot(atBase, of(node.same)))
  }

  /** What is stored of a node: one v128 of 16-bit words, or two of F32, these still in groups. */
  function encoded(index: number, dtype: FloatDType): Code[] {
    const node = kernel.nodes[index]!
    if (!is16(dtype))
      return [0, 1].map((group) =>
        once(`stored ${index} ${group}`, () => e.let(canonicalF32(e, value(index, group)))),
      )
    const pack = () =>
      node.op === 'input' && kernel.inputs[node.index] === dtype
        ? canonical16(e, dtype, load(node.index, dtype, 0))
        : pack16(e, dtype, value(index, 0), value(index, 1))
    return [once(`stored ${index} ${dtype}`, () => e.let(pack()))]
  }

  /** A mask of 32-bit lanes in two groups as one of 16-bit lanes in the order of the elements. */
  const merge = (even: Code, odd: Code) =>
    split ? v128.select(odd, even, e.constant(0xffff0000)) : i16x8.narrowI32x4S(even, odd)

  function count(address: number, mask: Code): void {
    const sum = firstV128 + locals++
    keep(before, e.constant(0), sum)
    keep(turn, i16x8.sub(get(sum), mask), sum)
    after.push(v128.store(i32.const(0), get(sum), address))
  }

  for (const [i, output] of kernel.outputs.entries()) {
    const tile = kernel.inputs.length + i
    const words = encoded(output.node, output.dtype)
    const to = address(tile, output.dtype)
    const ordered =
      words.length === 2 && split
        ? [shuffle32(words[0]!, words[1]!, [0, 4, 1, 5]), shuffle32(words[0]!, words[1]!, [2, 6, 3, 7])]
        : words
    for (const [at, word] of ordered.entries()) turn.push(v128.store(to, word, at * 16))
    const node = kernel.nodes[output.node]!
    if (node.op !== 'graft') continue
    const same = once(`same ${node.same}`, () => e.let(merge(value(node.same, 0), value(node.same, 1))))
    const cpt = encoded(node.cpt, output.dtype)
    const equal =
      words.length === 2
        ? merge(i32x4.eq(words[0]!, cpt[0]!), i32x4.eq(words[1]!, cpt[1]!))
        : i16x8.eq(words[0]!, cpt[0]!)
    count(counters[i]!, same)
    count(counters[i]! + 16, v128.andnot(equal, same))
  }

  const body = [
    ...before.flat(),
    ...set(end, i32.shl(get(0), i32.const(4))),
    ...doWhile(
      [
        ...set(offset32, i32.shl(get(offset), i32.const(1))),
        ...turn.flat(),
        ...set(offset, i32.add(get(offset), i32.const(STEP * 2))),
      ],
      i32.ltU(get(offset), get(end)),
    ),
    ...after.flat(),
  ]
  return moduleOf(pointers + 1, 3, locals, body)
}

function is16(dtype: FloatDType): dtype is 'BF16' | 'F16' {
  return dtype === 'BF16' || dtype === 'F16'
}
