/*
 * A very small WebAssembly assembler: code is an array of bytes, an instruction is a function from the code of its
 * operands to the code of its result. Opcodes: WebAssembly core specification 2.0, section 5.4. No relaxed SIMD: its
 * multiply-add rounds once or twice as the machine likes.
 */

export type Code = readonly number[]

/** Types of locals. */
export const I32 = 0x7f
export const F32 = 0x7d
export const F64 = 0x7c
const V128 = 0x7b

/** Unsigned LEB128. */
export function unsigned(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest & 0x7f) | 0x80)
  return [...bytes, rest]
}

/** Signed LEB128 of a 32-bit integer. */
export function signed(value: number): number[] {
  const bytes: number[] = []
  let rest = value | 0
  for (; rest < -64 || rest > 63; rest >>= 7) bytes.push((rest & 0x7f) | 0x80)
  return [...bytes, rest & 0x7f]
}

export const get = (index: number): Code => [0x20, ...unsigned(index)]
export const set = (index: number, value: Code): Code => [...value, 0x21, ...unsigned(index)]

const plain =
  (opcode: number) =>
  (...operands: readonly Code[]): Code => [...operands.flat(), opcode]
const simd =
  (opcode: number) =>
  (...operands: readonly Code[]): Code => [...operands.flat(), 0xfd, ...unsigned(opcode)]
const shift =
  (opcode: number) =>
  (value: Code, by: number): Code =>
    simd(opcode)(value, i32.const(by))

const load =
  (opcode: number, align: number) =>
  (address: Code, offset = 0): Code => [...address, opcode, align, ...unsigned(offset)]
const store =
  (opcode: number, align: number) =>
  (address: Code, value: Code, offset = 0): Code => [...address, ...value, opcode, align, ...unsigned(offset)]

/** a where the I32 is not zero, else b. */
export const select = (a: Code, b: Code, condition: Code): Code => [...a, ...b, ...condition, 0x1b]

export const i32 = {
  const: (value: number): Code => [0x41, ...signed(value)],
  isZero: plain(0x45),
  eq: plain(0x46),
  ltS: plain(0x48),
  ltU: plain(0x49),
  gtS: plain(0x4a),
  popcnt: plain(0x69),
  add: plain(0x6a),
  sub: plain(0x6b),
  mul: plain(0x6c),
  and: plain(0x71),
  or: plain(0x72),
  shl: plain(0x74),
  shrU: plain(0x76),
  load: load(0x28, 2),
  load16: load(0x2f, 1),
  store: store(0x36, 2),
  store16: store(0x3b, 1),
  bitsOfF32: plain(0xbc),
}

export const i64 = {
  eq: plain(0x51),
  bitsOfF64: plain(0xbd),
}

/** The instructions on single floats that both kinds have. */
function floats(kind: {
  compare: number
  unary: number
  binary: number
  load: number
  align: number
  constant: (value: number) => Code
  fromI32: number
}) {
  const [compare, unary, binary] = [kind.compare, kind.unary, kind.binary]
  return {
    const: kind.constant,
    load: load(kind.load, kind.align),
    store: store(kind.load + 14, kind.align),
    eq: plain(compare),
    ne: plain(compare + 1),
    lt: plain(compare + 2),
    gt: plain(compare + 3),
    le: plain(compare + 4),
    abs: plain(unary),
    neg: plain(unary + 1),
    add: plain(binary),
    sub: plain(binary + 1),
    mul: plain(binary + 2),
    div: plain(binary + 3),
    min: plain(binary + 4),
    fromI32: plain(kind.fromI32),
  }
}

/** A float's bytes, of a typed array that holds it. */
const bytesOf = (values: Float32Array | Float64Array): number[] => [...new Uint8Array(values.buffer)]

export const f32 = {
  ...floats({
    ...{ compare: 0x5b, unary: 0x8b, binary: 0x92, load: 0x2a, align: 2, fromI32: 0xb2 },
    constant: (value) => [0x43, ...bytesOf(Float32Array.of(value))],
  }),
  ofBits: plain(0xbe),
  ofF64: plain(0xb6),
}

export const f64 = {
  ...floats({
    ...{ compare: 0x61, unary: 0x99, binary: 0xa0, load: 0x2b, align: 3, fromI32: 0xb7 },
    constant: (value) => [0x44, ...bytesOf(Float64Array.of(value))],
  }),
  ofF32: plain(0xbb),
}

export const v128 = {
  /** Four lanes of `bits`. In the loop itself: measured faster than a local, which takes a register or a spill. */
  splat: (bits: number): Code => {
    const lane = [0, 8, 16, 24].map((by) => (bits >>> by) & 0xff)
    return [0xfd, 0x0c, ...lane, ...lane, ...lane, ...lane]
  },
  /** Four lanes of 32 bits. */
  const32: (lanes: readonly number[]): Code => [
    ...[0xfd, 0x0c],
    ...lanes.flatMap((lane) => [0, 8, 16, 24].map((by) => (lane >>> by) & 0xff)),
  ],
  load: (address: Code, offset: number): Code => [...address, 0xfd, 0x00, 4, ...unsigned(offset)],
  load32Splat: (address: Code, offset: number): Code => [...address, 0xfd, 0x09, 2, ...unsigned(offset)],
  store: (address: Code, value: Code, offset: number): Code => [
    ...address,
    ...value,
    0xfd,
    0x0b,
    4,
    ...unsigned(offset),
  ],
  /** Lane 0 to memory. */
  store32First: (address: Code, value: Code, offset = 0): Code => [
    ...address,
    ...value,
    ...[0xfd, 0x5a, 2, ...unsigned(offset), 0],
  ],
  and: simd(0x4e),
  /** a and not b. */
  andnot: simd(0x4f),
  or: simd(0x50),
  xor: simd(0x51),
  /** Bits of a where the mask's are set, else of b. */
  select: simd(0x52),
}

/** The low halves of a's 32-bit lanes beside the high halves of b's. One instruction, where `select` takes three. */
export function blendHalves(low: Code, high: Code): Code {
  const bytes = [0, 1, 2, 3].flatMap((lane) => [4 * lane, 4 * lane + 1, 4 * lane + 18, 4 * lane + 19])
  return [...low, ...high, 0xfd, 0x0d, ...bytes]
}

/** Lanes of 32 bits taken from a (0 to 3) and b (4 to 7). */
export function shuffle32(a: Code, b: Code, lanes: readonly number[]): Code {
  return [...a, ...b, 0xfd, 0x0d, ...lanes.flatMap((lane) => [0, 1, 2, 3].map((byte) => lane * 4 + byte))]
}

export const i8x16 = {
  /** Bytes of a by the indices in b; 0 where an index is 16 or more. */
  swizzle: simd(0x0e),
}

export const i16x8 = {
  eq: simd(0x2d),
  gtS: simd(0x31),
  /** The lanes of a, then of b, saturated to 16 bits. */
  narrowI32x4S: simd(0x85),
  add: simd(0x8e),
  sub: simd(0x91),
  maxS: simd(0x98),
}

export const i32x4 = {
  splat: simd(0x11),
  eq: simd(0x37),
  ltU: simd(0x3a),
  gtS: simd(0x3b),
  /** Bit i is the sign of lane i. */
  bitmask: simd(0xa4),
  shl: shift(0xab),
  shrU: shift(0xad),
  add: simd(0xae),
  sub: simd(0xb1),
  minS: simd(0xb6),
  maxS: simd(0xb8),
  /** Towards zero; saturates. */
  truncateF32: simd(0xf8),
}

export const f32x4 = {
  eq: simd(0x41),
  ne: simd(0x42),
  lt: simd(0x43),
  gt: simd(0x44),
  le: simd(0x45),
  abs: simd(0xe0),
  sqrt: simd(0xe3),
  add: simd(0xe4),
  sub: simd(0xe5),
  mul: simd(0xe6),
  div: simd(0xe7),
  min: simd(0xe8),
  max: simd(0xe9),
  /** b < a ? b : a, so a where either is NaN. */
  pmin: simd(0xea),
  /** a < b ? b : a, so a where either is NaN. */
  pmax: simd(0xeb),
  convertI32: simd(0xfa),
  nearest: simd(0x6a),
}

export const i64x2 = {
  /** Products of the unsigned 32-bit lanes 0 and 1. */
  extmulLowU: simd(0xde),
  /** Of lanes 2 and 3. */
  extmulHighU: simd(0xdf),
}

export const f64x2 = {
  /** Lanes 0 and 1 of an f32x4. */
  promoteLow: simd(0x5f),
  abs: simd(0xec),
  add: simd(0xf0),
  sub: simd(0xf1),
  mul: simd(0xf2),
  /** a < b ? b : a. */
  pmax: simd(0xf7),
}

/** Runs `body` again and again while `condition` holds after it. */
export function doWhile(body: Code, condition: Code): Code {
  return [0x03, 0x40, ...body, ...condition, 0x0d, 0, 0x0b] // loop, br_if 0, end
}

/** Runs `body` where `condition` is not zero. */
export function when(condition: Code, body: Code): Code {
  return [...condition, 0x04, 0x40, ...body, 0x0b] // if, end
}

/** Limits of an imported memory: one of a thread's own, or one that threads share (which needs a maximum: 4 GiB). */
export const MEMORY_LIMITS = { own: [0x00, 1], shared: [0x03, 1, ...unsigned(65536)] } as const

/**
 * A module that imports the memory `env.memory` and exports one function `run` of `params` i32 parameters without a
 * result; its locals are `i32s` i32, then `v128s` v128, counted on from the parameters.
 */
export function moduleOf(
  params: number,
  i32s: number,
  v128s: number,
  body: Code,
  limits: Code = MEMORY_LIMITS.own,
): Uint8Array<ArrayBuffer> {
  return assemble(params, [2, ...unsigned(i32s), I32, ...unsigned(v128s), V128], body, limits)
}

/** As `moduleOf`, with locals of any types: one of each of `types`, counted on from the parameters. */
export function moduleOfTypes(params: number, types: Code, body: Code): Uint8Array<ArrayBuffer> {
  const locals = [...unsigned(types.length), ...types.flatMap((type) => [1, type])]
  return assemble(params, locals, body, MEMORY_LIMITS.own)
}

function assemble(params: number, locals: Code, body: Code, limits: Code): Uint8Array<ArrayBuffer> {
  const code = [...locals, ...body, 0x0b]
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, ...sized(Array(params).fill(I32)), 0]),
    ...section(2, [1, ...name('env'), ...name('memory'), 0x02, ...limits]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('run'), 0x00, 0]),
    ...section(10, [1, ...sized(code)]),
  ])
}

function section(id: number, content: Code): Code {
  return [id, ...sized(content)]
}

function sized(content: Code): Code {
  return [...unsigned(content.length), ...content]
}

function name(text: string): Code {
  return sized([...text].map((letter) => letter.charCodeAt(0)))
}
