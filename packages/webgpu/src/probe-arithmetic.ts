import { floatFunctions } from './_wgsl-floats.js'
import { defineKernel, divideUp } from './define-kernel.js'
import { dispatch } from './dispatch.js'
import type { Arithmetic, UnprobedGpu } from './gpu.js'

/** What the probe found. */
export interface Probe {
  readonly arithmetic: Arithmetic
  /** False where not even 1 + 2 is 3: the adapter does nothing. */
  readonly computes: boolean
  /** Lane i of a workgroup is in subgroup floor(i / size). False without subgroups too. */
  readonly linearSubgroups: boolean
}

/**
 * x: three operands for each case, as bits of F32. y: their sum, product, and a * b + c, of which a compiler may make one operation.
 * Bindings x (read), y (read-write). Dispatch: one invocation for each case.
 */
const arithmeticProbe = defineKernel({
  name: 'probe of arithmetic',
  bindings: { x: { access: 'read', type: 'u32' }, y: { access: 'read-write', type: 'u32' } },
  params: { count: 'u32', zero: 'u32' },
  workgroup: [64, 1, 1],
  declarations: floatFunctions('native'),
  main: `
if (id.x >= params.count) { return; }
let a = x[id.x * 3u];
let b = x[id.x * 3u + 1u];
let c = x[id.x * 3u + 2u];
y[id.x * 3u] = f_add(a, b);
y[id.x * 3u + 1u] = f_mul(a, b);
y[id.x * 3u + 2u] = bitcast<u32>(bitcast<f32>(a) * bitcast<f32>(b) + bitcast<f32>(c));`,
  grid: ({ count }) => [divideUp(count, 64), 1, 1],
})

/** y: for each lane, the first lane of its subgroup and the subgroup's size. */
const subgroupProbe = defineKernel({
  name: 'probe of subgroups',
  bindings: { y: { access: 'read-write', type: 'u32' } },
  params: {},
  workgroup: [64, 1, 1],
  enable: ['subgroups'],
  main: `
y[lane * 2u] = subgroupBroadcastFirst(lane);
y[lane * 2u + 1u] = subgroup_size;`,
  grid: () => [1, 1, 1],
})

/** Zeros, ones, the ends of the subnormals, numbers whose product or sum is subnormal, the largest, infinities, NaN. */
const SPECIAL = [
  0, 0x3f800000, 1, 3, 0x7fffff, 0x800000, 0x800001, 0x1fc00000, 0x20000001, 0x3f000000, 0x3f800001,
  0x4b800000, 0x7f7fffff, 0x7f000000, 0x7f800000, 0x7fc00000, 0x7f800001,
].flatMap((bits) => [bits, (bits | 0x80000000) >>> 0])
const RANDOM_CASES = 4096

/** Runs additions and multiplications on the device, and compares them with this processor's. */
export async function probeArithmetic(gpu: UnprobedGpu): Promise<Probe> {
  const x = cases()
  const count = x.length / 3
  const y = await runProbe(gpu, x, count)
  const expected = expectedOf(x)
  const same = (i: number) => y[i] === expected[i] || (isNan(y[i]!) && isNan(expected[i]!))
  const indices = [...expected.keys()]
  const wrong = indices.filter((i) => i % 3 !== 2 && !same(i))
  const unexplained = wrong.filter((i) => !involvesSubnormal(x, expected, i))
  return {
    arithmetic: {
      exact: wrong.length === 0,
      flushesSubnormals: wrong.length > unexplained.length,
      contracts: indices.some((i) => i % 3 === 2 && !same(i) && !involvesSubnormal(x, expected, i)),
    },
    computes: y[0] === expected[0] && unexplained.length < RANDOM_CASES / 2,
    linearSubgroups: gpu.features.subgroups && (await subgroupsAreLinear(gpu)),
  }
}

/** The first is 1 + 2; then pairs of special values, and random bits of all sizes. */
function cases(): Uint32Array<ArrayBuffer> {
  let state = 1
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state ^ (state >>> 15)) >>> 0
  }
  const near = (bits: number) => (bits & 0x807fffff) | ((0x70 + (random() & 31)) << 23)
  return Uint32Array.from([
    ...[0x3f800000, 0x40000000, 0],
    ...SPECIAL.flatMap((a) => SPECIAL.flatMap((b) => [a, b, random()])),
    ...Array.from({ length: RANDOM_CASES }, () => [near(random()), near(random()), near(random())]).flat(),
    ...Array.from({ length: RANDOM_CASES * 3 }, random),
  ])
}

function expectedOf(x: Uint32Array<ArrayBuffer>): Uint32Array {
  const values = new Float32Array(x.buffer)
  const y = new Float32Array(x.length)
  for (let i = 0; i < x.length; i += 3) {
    const [a, b, c] = [values[i]!, values[i + 1]!, values[i + 2]!]
    y[i] = a + b
    y[i + 1] = a * b
    y[i + 2] = Math.fround(a * b) + c
  }
  return new Uint32Array(y.buffer)
}

async function runProbe(gpu: UnprobedGpu, x: Uint32Array<ArrayBuffer>, count: number): Promise<Uint32Array> {
  const buffers = { x: gpu.createBuffer(x.byteLength), y: gpu.createBuffer(x.byteLength) }
  try {
    gpu.write(buffers.x, x)
    gpu.run([dispatch(arithmeticProbe, buffers, { count, zero: 0 })])
    return new Uint32Array((await gpu.read(buffers.y)).buffer)
  } finally {
    for (const buffer of Object.values(buffers)) buffer.destroy()
  }
}

async function subgroupsAreLinear(gpu: UnprobedGpu): Promise<boolean> {
  const y = gpu.createBuffer(64 * 2 * 4)
  try {
    gpu.run([dispatch(subgroupProbe, { y }, {})])
    const found = new Uint32Array((await gpu.read(y)).buffer)
    return Array.from({ length: 64 }, (_, lane) => lane).every((lane) => {
      const [first, size] = [found[lane * 2]!, found[lane * 2 + 1]!]
      return size >= 4 && first === lane - (lane % size)
    })
  } finally {
    y.destroy()
  }
}

function isNan(bits: number): boolean {
  return (bits & 0x7fffffff) > 0x7f800000
}

/** Whether an operand or the result of output i is subnormal: then a device that flushes gives another. */
function involvesSubnormal(x: Uint32Array, expected: Uint32Array, i: number): boolean {
  const subnormal = (bits: number) => (bits & 0x7f800000) === 0 && (bits & 0x7fffff) !== 0
  const begin = i - (i % 3)
  return [x[begin]!, x[begin + 1]!, x[begin + 2]!, expected[begin + 1]!, expected[i]!].some(subnormal)
}
