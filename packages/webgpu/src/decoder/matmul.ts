import { defineKernel, divideUp } from '../define-kernel.js'
import { WEIGHT_AT } from './_weights.js'

const TILE = 64
const DEPTH = 16

/**
 * y[t, to + n] (+)= factor * (sum over k of x[t, k] w[n, k] + b[to + n]), n of this piece of w.
 * Bindings x F32 [T, K], w stored [pieceRows, K] from element `offset`, b F32 [N] or anything, y F32 [T, N].
 * Dispatch: a workgroup of 16 x 16 for 64 x 64 outputs, 4 x 4 each. Tolerance: 2^-22 of the sum of magnitudes, K <= 4096.
 */
export const matmul = defineKernel({
  name: 'matmul',
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
  workgroup: [16, 16, 1],
  declarations: `
${WEIGHT_AT}

var<workgroup> xs: array<f32, ${TILE * DEPTH}>; // [k, t]
var<workgroup> ws: array<f32, ${TILE * DEPTH}>; // [k, n]`,
  main: `
let t0 = group.y * ${TILE}u;
let n0 = group.x * ${TILE}u;
var sums: array<vec4f, 4>;
for (var k0 = 0u; k0 < params.depth; k0 += ${DEPTH}u) {
  for (var i = lane; i < ${TILE * DEPTH}u; i += 256u) {
    let r = i / ${DEPTH}u;
    let k = k0 + i % ${DEPTH}u;
    let at = (i % ${DEPTH}u) * ${TILE}u + r;
    xs[at] = 0.0;
    ws[at] = 0.0;
    if (k < params.depth && t0 + r < params.rows) { xs[at] = x[(t0 + r) * params.depth + k]; }
    if (k < params.depth && n0 + r < params.pieceRows) {
      ws[at] = weight_at(params.offset + (n0 + r) * params.depth + k);
    }
  }
  workgroupBarrier();
  for (var k = 0u; k < ${DEPTH}u; k++) {
    let n = k * ${TILE}u + local.x * 4u;
    let t = k * ${TILE}u + local.y * 4u;
    let wide = vec4f(ws[n], ws[n + 1u], ws[n + 2u], ws[n + 3u]);
    for (var i = 0u; i < 4u; i++) { sums[i] += xs[t + i] * wide; }
  }
  workgroupBarrier();
}
for (var i = 0u; i < 4u; i++) {
  for (var j = 0u; j < 4u; j++) {
    let t = t0 + local.y * 4u + i;
    let n = n0 + local.x * 4u + j;
    if (t >= params.rows || n >= params.pieceRows) { continue; }
    let at = t * params.columns + params.to + n;
    var value = sums[i][j];
    if (params.biased != 0u) { value += b[params.to + n]; }
    value *= params.factor;
    if (params.adds != 0u) { value += y[at]; }
    y[at] = value;
  }
}`,
  grid: ({ rows, pieceRows }) => [divideUp(pieceRows, TILE), divideUp(rows, TILE), 1],
})
