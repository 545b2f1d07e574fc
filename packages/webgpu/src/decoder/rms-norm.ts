import { defineKernel, foldedGrid } from '../define-kernel.js'
import { LANES, SUM_OF } from './_weights.js'

/**
 * y = x / sqrt(mean(x^2) + eps) * w, row by row (RMSNorm, arXiv:1910.07467).
 * Bindings x, y F32 [rows, columns], w F32 [columns]. Dispatch: a workgroup of 64 for a row. Tolerance: 2^-20 relative.
 */
export const rmsNorm = defineKernel({
  name: 'RMSNorm',
  bindings: {
    x: { access: 'read', type: 'f32' },
    w: { access: 'read', type: 'f32' },
    y: { access: 'read-write', type: 'f32' },
  },
  params: { rows: 'u32', columns: 'u32', eps: 'f32' },
  workgroup: [LANES, 1, 1],
  declarations: SUM_OF,
  main: `
let row = group.x + group.y * groups.x;
if (row >= params.rows) { return; }
let at = row * params.columns;
var squares = 0.0;
for (var i = lane; i < params.columns; i += ${LANES}u) { squares += x[at + i] * x[at + i]; }
let mean = sum_of(squares, lane) / f32(params.columns);
let factor = inverseSqrt(mean + params.eps);
for (var i = lane; i < params.columns; i += ${LANES}u) { y[at + i] = x[at + i] * factor * w[i]; }`,
  grid: ({ rows }) => foldedGrid(rows),
})
