import { defineKernel, foldedGrid } from '../define-kernel.js'
import { LANES, SUM_OF, WEIGHT_AT } from './_weights.js'

/** The lane's share of sum over k of x[row, k] w[n, k]: a word of two elements at a time where rows begin with a word. */
const DOT = `
fn dot_of(x_at: u32, w_at: u32, depth: u32, lane: u32) -> f32 {
  var sum = 0.0;
  if (DTYPE != 0u && (depth & 1u) == 0u && (w_at & 1u) == 0u) {
    for (var k = lane * 2u; k < depth; k += ${LANES * 2}u) {
      let word = w[(w_at + k) >> 1u];
      var pair = unpack2x16float(word);
      if (DTYPE == 1u) { pair = vec2f(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u)); }
      sum += x[x_at + k] * pair.x + x[x_at + k + 1u] * pair.y;
    }
    return sum;
  }
  for (var k = lane; k < depth; k += ${LANES}u) { sum += x[x_at + k] * weight_at(w_at + k); }
  return sum;
}`

/**
 * What `matmul` computes, for few rows. Reads every weight once for each row.
 * Bindings as `matmul`. Dispatch: a workgroup of 64 for one output. Tolerance as `matmul`.
 */
export const matvec = defineKernel({
  name: 'matvec',
  bindings: {
    x: { access: 'read', type: 'f32' },
    w: { access: 'read', type: 'u32' },
    b: { access: 'read', type: 'f32' },
    y: { access: 'read-write', type: 'f32' },
  },
  params: {
    rows: 'u32',
    depth: 'u32',
    pieceRows: 'u32',
    columns: 'u32',
    to: 'u32',
    offset: 'u32',
    biased: 'u32',
    adds: 'u32',
    factor: 'f32',
  },
  overrides: { DTYPE: 0 },
  workgroup: [LANES, 1, 1],
  declarations: `${WEIGHT_AT}\n${SUM_OF}\n${DOT}`,
  main: `
let n = group.x + group.y * groups.x;
let t = group.z;
if (n >= params.pieceRows) { return; }
var value = sum_of(dot_of(t * params.depth, params.offset + n * params.depth, params.depth, lane), lane);
if (lane != 0u) { return; }
let at = t * params.columns + params.to + n;
if (params.biased != 0u) { value += b[params.to + n]; }
value *= params.factor;
if (params.adds != 0u) { value += y[at]; }
y[at] = value;`,
  grid: ({ rows, pieceRows }) => {
    const [x, y] = foldedGrid(pieceRows)
    return [x, y, rows]
  },
})

/**
 * y[s, n] = sum over k of x[row of s, k] w[expert of s, n, k], for the slots s (row, choice) whose expert lies in this piece of w;
 * the weights of other experts are not touched.
 * Bindings x F32 [T, K] or [T * k, K], w stored [experts of the piece, stride], experts u32 [T * k], y F32 [T * k, N].
 * `perRow` slots share a row of x. Dispatch: a workgroup of 64 for one output. Tolerance as `matmul`.
 */
export const expertMatvec = defineKernel({
  name: 'matvec by expert',
  bindings: {
    x: { access: 'read', type: 'f32' },
    w: { access: 'read', type: 'u32' },
    experts: { access: 'read', type: 'u32' },
    y: { access: 'read-write', type: 'f32' },
  },
  params: {
    slots: 'u32',
    firstSlot: 'u32',
    perRow: 'u32',
    depth: 'u32',
    columns: 'u32',
    firstExpert: 'u32',
    pieceExperts: 'u32',
    stride: 'u32',
  },
  overrides: { DTYPE: 0 },
  workgroup: [LANES, 1, 1],
  declarations: `
${WEIGHT_AT}
${SUM_OF}
${DOT}

var<workgroup> expert: u32;`,
  main: `
let n = group.x + group.y * groups.x;
let slot = params.firstSlot + group.z;
if (n >= params.columns) { return; }
if (lane == 0u) { expert = experts[slot] - params.firstExpert; }
let e = workgroupUniformLoad(&expert);
if (e >= params.pieceExperts) { return; }
let row = slot / params.perRow;
let sum = sum_of(dot_of(row * params.depth, e * params.stride + n * params.depth, params.depth, lane), lane);
if (lane == 0u) { y[slot * params.columns + n] = sum; }`,
  grid: ({ slots, columns }) => {
    const [x, y] = foldedGrid(columns)
    return [x, y, slots]
  },
})
