import type { Kernel, KernelNode } from '@polygraft/kernels'
import type { FloatDType } from '@polygraft/tensor'
import { floatFunctions, type TileArithmetic } from './_wgsl-floats.js'
import { defineKernel, divideUp, foldedGrid, type GpuKernel } from './define-kernel.js'

const WORKGROUP = 64
/** Elements of one invocation: the two halves of a word. */
const PAIR = 2
/** Sums for each output. */
export const SUMS = 3
/** Magnitudes from this one on are stored infinities and NaN. */
const NOT_FINITE = { F32: '0x7f800000u', BF16: '0x7f80u', F16: '0x7c00u' } as const

/**
 * A tile kernel in WGSL.
 * x: the input tiles, input i from word `in{i}` on. y: the output tiles, likewise from `out{i}`. 16-bit elements lie two in a word.
 * counts: for each output three sums: `changed` and `swallowed`, of grafts only, and elements that are not finite.
 * Bindings x (read), y and counts (read-write). Dispatch: one invocation for two elements. Tolerance: none, equal to the bit.
 */
export function tileKernelOf(kernel: Kernel, arithmetic: TileArithmetic): GpuKernel {
  const words = (prefix: string, items: readonly unknown[]) =>
    items.map((_, i) => [`${prefix}${i}`, 'u32'] as const)
  return defineKernel({
    name: `tile kernel, ${arithmetic} arithmetic`,
    bindings: {
      x: { access: 'read', type: 'u32' },
      y: { access: 'read-write', type: 'u32' },
      counts: { access: 'read-write', type: 'atomic<u32>' },
    },
    params: Object.fromEntries<'u32'>([
      ['count', 'u32'],
      ['zero', 'u32'],
      ...words('in', kernel.inputs),
      ...words('out', kernel.outputs),
      ...words('scalar', kernel.scalars),
      ...words('end', kernel.ends),
    ]),
    workgroup: [WORKGROUP, 1, 1],
    declarations: [
      floatFunctions(arithmetic),
      CONVERSIONS.trim(),
      `var<workgroup> tally: array<atomic<u32>, ${kernel.outputs.length * SUMS}>;`,
    ].join('\n\n'),
    main: mainOf(kernel),
    grid: ({ count }) => foldedGrid(divideUp(count!, WORKGROUP * PAIR)),
  }) as unknown as GpuKernel
}

/** From stored elements to bits of F32 and back, rounded to nearest, ties to even; every NaN is stored canonical. */
const CONVERSIONS = `
fn decode_f16(h: u32) -> u32 {
  let sign = (h & 0x8000u) << 16u;
  let a = h & 0x7fffu;
  if (a >= 0x7c00u) { return sign | INFINITY | ((a & 0x3ffu) << 13u); }
  if (a >= 0x400u) { return sign | ((a << 13u) + 0x38000000u); }
  if (a == 0u) { return sign; }
  let up = countLeadingZeros(a) - 21u;
  return sign | ((113u - up) << 23u) | (((a << up) & 0x3ffu) << 13u);
}

fn encode_f16(v: u32) -> u32 {
  let sign = (v >> 16u) & 0x8000u;
  let a = v & MAGNITUDE;
  if (a > INFINITY) { return 0x7e00u; }
  if (a >= 0x47800000u) { return sign | 0x7c00u; }
  if (a >= 0x38800000u) { return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u); }
  if (a <= 0x33000000u) { return sign; }
  let shift = 126u - (a >> 23u);
  let significand = (a & 0x7fffffu) | 0x800000u;
  let m = significand >> shift;
  let rest = significand & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return sign | (m + u32(rest > half || (rest == half && (m & 1u) == 1u)));
}

fn encode_bf16(v: u32) -> u32 {
  if (is_nan(v)) { return 0x7fc0u; }
  return (v + 0x7fffu + ((v >> 16u) & 1u)) >> 16u;
}

fn encode_f32(v: u32) -> u32 { return select(v, NAN, is_nan(v)); }
`

function mainOf(kernel: Kernel): string {
  const sixteen = [...kernel.outputs.entries()].filter(([, { dtype }]) => dtype !== 'F32').map(([i]) => i)
  return [
    `let pair = id.x + id.y * (groups.x * ${WORKGROUP}u);`,
    'if (pair * 2u < params.count) {',
    ...sixteen.map((i) => `  var word${i} = 0u;`),
    '  for (var k = 0u; k < 2u; k++) {',
    '    let index = pair * 2u + k;',
    ...kernel.nodes.map((node, i) => indented(statementOf(kernel, node, i))),
    ...kernel.outputs.map((_, i) => indented(storeOf(kernel, i))),
    '  }',
    ...sixteen.map((i) => `  y[params.out${i} + pair] = word${i};`),
    '}',
    ...addTally(kernel.outputs.length * SUMS),
  ].join('\n')
}

function indented(statements: string): string {
  return `    ${statements.replaceAll('\n', '\n    ')}`
}

/** One addition to the tile's sums for each workgroup. */
function addTally(sums: number): string[] {
  return [
    'workgroupBarrier();',
    `for (var i = lane; i < ${sums}u; i += ${WORKGROUP}u) {`,
    '  atomicAdd(&counts[i], atomicLoad(&tally[i]));',
    '}',
  ]
}

/** The bits of input `index`'s element as F32. */
function load(dtype: FloatDType, index: number): string {
  if (dtype === 'F32') return `x[params.in${index} + index]`
  return decoded(dtype, `(x[params.in${index} + pair] >> (k * 16u)) & 0xffffu`)
}

function decoded(dtype: FloatDType, half: string): string {
  return dtype === 'BF16' ? `(${half}) << 16u` : `decode_f16(${half})`
}

/** The element's value of node i: `v{i}`, bits of F32, or bool for `equal`. */
function statementOf(kernel: Kernel, node: KernelNode, i: number): string {
  const v = (index: number) => `v${index}`
  const out = v(i)
  switch (node.op) {
    case 'input':
      return `let ${out} = ${load(kernel.inputs[node.index]!, node.index)};`
    case 'add':
    case 'sub':
    case 'mul':
    case 'equal':
      return `let ${out} = f_${node.op}(${v(node.a)}, ${v(node.b)});`
    case 'scale':
      return `let ${out} = f_mul(params.scalar${node.scalar}, ${v(node.a)});`
    case 'cast':
      return `let ${out} = ${cast(node.dtype, v(node.a))};`
    case 'ratio': {
      const size = `${v(node.b)} & MAGNITUDE`
      const guard = `params.scalar${node.scalar}`
      return ifElse(
        out,
        `f_below(${size}, ${guard}) || f_equal(${size}, ${guard})`,
        '0x3f800000u',
        `f_div(${v(node.a)}, ${v(node.b)})`,
      )
    }
    case 'keep': {
      const size = `${v(node.b)} & MAGNITUDE`
      const threshold = `params.scalar${node.scalar}`
      const late = `index >= params.end${node.end}`
      const drop = `f_below(${size}, ${threshold}) || (f_equal(${size}, ${threshold}) && ${late})`
      return `let ${out} = select(${v(node.a)}, 0u, ${drop});`
    }
    case 'elect':
      return electOf(node, v, out)
    case 'select':
      return `let ${out} = select(${v(node.a)}, ${v(node.b)}, (${v(node.mask)} & MAGNITUDE) == 0u);`
    case 'clamp': {
      const [delta, by] = [v(node.delta), `params.scalar${node.scalar}`]
      return [
        `var ${out} = select(${v(node.a)}, NAN, is_nan(${delta}));`,
        `if (!is_nan(${delta}) && f_above(${delta} & MAGNITUDE, ${by})) {`,
        `  ${out} = f_add(${v(node.b)}, select(${by}, ${by} ^ SIGN, sign_of(${delta}) < 0));`,
        '}',
      ].join('\n')
    }
    case 'graft': {
      const delta = v(node.delta)
      const by = node.scalar === undefined ? delta : `f_mul(params.scalar${node.scalar}, ${delta})`
      const moved = `f_add(${v(node.cpt)}, ${by})`
      return [
        `var ${out} = ${v(node.cpt)};`,
        `if (!${v(node.same)}) {`,
        node.scalar === undefined
          ? `  if (f_equal(${v(node.cpt)}, ${v(node.base)})) { ${out} = ${v(node.post)}; } else { ${out} = ${moved}; }`
          : `  ${out} = ${moved};`,
        '}',
      ].join('\n')
    }
  }
}

function ifElse(out: string, condition: string, yes: string, no: string): string {
  return `var ${out} = ${yes};\nif (!(${condition})) { ${out} = ${no}; }`
}

function cast(dtype: FloatDType, value: string): string {
  if (dtype === 'BF16') return `encode_bf16(${value}) << 16u`
  if (dtype === 'F16') return `decode_f16(encode_f16(${value}))`
  return value
}

/** The mean of the elected operands, see `elect` of `Expr`; +0 where none is, NaN where the sum is NaN. */
function electOf(
  { args, sum, by, positive, weights }: Extract<KernelNode, { op: 'elect' }>,
  v: (index: number) => string,
  out: string,
): string {
  const votes = by === 'count' ? args.map((arg) => `sign_of(${v(arg)})`).join(' + ') : `sign_of(${v(sum)})`
  const array = (name: string, items: readonly string[]) =>
    `  var ${name} = array<u32, ${items.length}>(${items.join(', ')});`
  const weightOf = (i: number) => (Array.isArray(weights) ? `params.scalar${weights[i]}` : '0x3f800000u')
  return [
    `var ${out} = NAN;`,
    `if (!is_nan(${v(sum)})) {`,
    `  var elected = sign(${votes});`,
    ...(positive ? ['  elected = select(elected, 1, elected == 0);'] : []),
    array('terms', args.map(v)),
    array(
      'weights',
      args.map((_, i) => weightOf(i)),
    ),
    '  var total = 0u;',
    '  var weight = 0u;',
    // A loop, as drivers put the functions into every place that calls them.
    `  for (var t = 0u; t < ${args.length}u; t++) {`,
    by === 'any'
      ? '    if ((terms[t] & MAGNITUDE) == 0u) { continue; }'
      : '    if (elected == 0 || sign_of(terms[t]) != elected) { continue; }',
    '    total = f_add(total, terms[t]);',
    ...(weights === 'none' ? [] : ['    weight = f_add(weight, weights[t]);']),
    '  }',
    weights === 'none'
      ? `  ${out} = total;`
      : `  ${out} = f_div(total, select(weight, 0x3f800000u, weight == 0u));`,
    '}',
  ].join('\n')
}

function storeOf(kernel: Kernel, output: number): string {
  const { node, dtype } = kernel.outputs[output]!
  const encode = (index: number) => `encode_${dtype.toLowerCase()}(v${index})`
  const stored = `stored${output}`
  const made = kernel.nodes[node]!
  return [
    `let ${stored} = ${encode(node)};`,
    dtype === 'F32'
      ? `y[params.out${output} + index] = ${stored};`
      : `word${output} |= ${stored} << (k * 16u);`,
    ...(made.op === 'graft' ? [countOf(output, made, encode(made.cpt))] : []),
    `if ((${stored} & ${dtype === 'F32' ? 'MAGNITUDE' : '0x7fffu'}) >= ${NOT_FINITE[dtype as 'F32']} && index < params.count) {`,
    `  atomicAdd(&tally[${output * SUMS + 2}], 1u);`,
    '}',
  ].join('\n')
}

function countOf(output: number, node: Extract<KernelNode, { op: 'graft' }>, cpt: string): string {
  return [
    `if (!v${node.same} && index < params.count) {`,
    `  atomicAdd(&tally[${output * SUMS}], 1u);`,
    `  if (stored${output} == ${cpt}) { atomicAdd(&tally[${output * SUMS + 1}], 1u); }`,
    '}',
  ].join('\n')
}
