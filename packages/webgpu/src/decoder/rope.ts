import { defineKernel, divideUp, foldedGrid } from '../define-kernel.js'

/**
 * Rotary positions in place (arXiv:2104.09864), from tables: (x[i], x[i + R/2]) turned by the row's angle i; dimensions from R on stay.
 * Bindings cos, sin F32 [T, R/2], x F32 [T, heads, D]. Dispatch: one invocation for a pair. Tolerance: 2^-22 of the pair.
 */
export const rope = defineKernel({
  name: 'RoPE',
  bindings: {
    cos: { access: 'read', type: 'f32' },
    sin: { access: 'read', type: 'f32' },
    x: { access: 'read-write', type: 'f32' },
  },
  params: { pairs: 'u32', heads: 'u32', headDim: 'u32', half: 'u32' },
  workgroup: [64, 1, 1],
  main: `
let pair = id.x + id.y * (groups.x * 64u);
if (pair >= params.pairs) { return; }
let i = pair % params.half;
let head = pair / params.half; // of all rows
let turn = (head / params.heads) * params.half + i;
let at = head * params.headDim + i;
let a = x[at];
let b = x[at + params.half];
x[at] = a * cos[turn] - b * sin[turn];
x[at + params.half] = b * cos[turn] + a * sin[turn];`,
  grid: ({ pairs }) => foldedGrid(divideUp(pairs, 64)),
})
