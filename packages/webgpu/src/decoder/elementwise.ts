import { defineKernel, divideUp, foldedGrid } from '../define-kernel.js'
import { DTYPE_CODES, WEIGHT_AT } from './_weights.js'

const INDEX = 'let i = id.x + id.y * (groups.x * 64u);\nif (i >= params.count) { return; }'
const grid = ({ count }: { readonly count: number }) => foldedGrid(divideUp(count, 64))

/** Values of the override ACTIVATION. */
export const ACTIVATION_CODES = { silu: 0, gelu: 1, gelu_tanh: 2, relu: 3 } as const

/**
 * gate = act(gate) * up. gelu by erf (Abramowitz and Stegun, 7.1.26: within 1.5e-7) or tanh.
 * Bindings up, gate F32 [count]. Tolerance: 1e-6 of max(|gate|, 1) * |up|.
 */
export const gatedActivation = defineKernel({
  name: 'gated activation',
  bindings: { up: { access: 'read', type: 'f32' }, gate: { access: 'read-write', type: 'f32' } },
  params: { count: 'u32' },
  overrides: { ACTIVATION: 0 },
  workgroup: [64, 1, 1],
  declarations: `
fn erf_of(x: f32) -> f32 {
  let a = min(abs(x), 9.0);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return sign(x) * (1.0 - p * exp(-a * a));
}

fn activated(x: f32) -> f32 {
  if (ACTIVATION == 0u) { return x / (1.0 + exp(min(-x, 80.0))); }
  if (ACTIVATION == 1u) { return 0.5 * x * (1.0 + erf_of(x * 0.70710678)); }
  if (ACTIVATION == 2u) {
    let inner = 0.79788456 * (x + 0.044715 * x * x * x);
    return 0.5 * x * (1.0 + tanh(clamp(inner, -10.0, 10.0)));
  }
  return max(x, 0.0);
}`,
  main: `${INDEX}\ngate[i] = activated(gate[i]) * up[i];`,
  grid,
})

/**
 * y[t] = scale * table[tokens[t]], for the tokens in this piece of the table.
 * Bindings tokens u32 [T], w stored [pieceRows, columns], y F32 [T, columns]; count = T * columns. Exact but for the product.
 */
export const embedding = defineKernel({
  name: 'embedding',
  bindings: {
    tokens: { access: 'read', type: 'u32' },
    w: { access: 'read', type: 'u32' },
    y: { access: 'read-write', type: 'f32' },
  },
  params: { count: 'u32', columns: 'u32', firstToken: 'u32', pieceRows: 'u32', offset: 'u32', scale: 'f32' },
  overrides: { DTYPE: DTYPE_CODES.F32! },
  workgroup: [64, 1, 1],
  declarations: WEIGHT_AT,
  main: `
${INDEX}
let token = tokens[i / params.columns] - params.firstToken;
if (token >= params.pieceRows) { return; }
y[i] = params.scale * weight_at(params.offset + token * params.columns + i % params.columns);`,
  grid,
})

/** y[at + i] = x[begin + i], words of any meaning: rows into a cache, experts into one buffer. */
export const copyWords = defineKernel({
  name: 'copy',
  bindings: { x: { access: 'read', type: 'u32' }, y: { access: 'read-write', type: 'u32' } },
  params: { count: 'u32', begin: 'u32', at: 'u32' },
  workgroup: [64, 1, 1],
  main: `${INDEX}\ny[params.at + i] = x[params.begin + i];`,
  grid,
})

/** hidden[t] += factor * sigmoid(s[t]) * y[t]. Bindings s F32 [T], y, hidden F32 [T, columns]; count = T * columns. */
export const addScaled = defineKernel({
  name: 'add by a sigmoid',
  bindings: {
    s: { access: 'read', type: 'f32' },
    y: { access: 'read', type: 'f32' },
    hidden: { access: 'read-write', type: 'f32' },
  },
  params: { count: 'u32', columns: 'u32', factor: 'f32' },
  workgroup: [64, 1, 1],
  main: `
${INDEX}
hidden[i] += params.factor / (1.0 + exp(min(-s[i / params.columns], 80.0))) * y[i];`,
  grid,
})

/**
 * hidden[t] += factor * sum over j of weights[t, j] y[t, j].
 * Bindings weights F32 [T, k], y F32 [T, k, columns], hidden F32 [T, columns]; count = T * columns.
 */
export const combineExperts = defineKernel({
  name: 'combine experts',
  bindings: {
    weights: { access: 'read', type: 'f32' },
    y: { access: 'read', type: 'f32' },
    hidden: { access: 'read-write', type: 'f32' },
  },
  params: { count: 'u32', columns: 'u32', topK: 'u32', factor: 'f32' },
  workgroup: [64, 1, 1],
  main: `
${INDEX}
let row = i / params.columns;
var sum = 0.0;
for (var j = 0u; j < params.topK; j++) {
  let slot = row * params.topK + j;
  sum += weights[slot] * y[slot * params.columns + i % params.columns];
}
hidden[i] += params.factor * sum;`,
  grid,
})
