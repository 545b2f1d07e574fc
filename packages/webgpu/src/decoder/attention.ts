import { defineKernel, foldedGrid } from '../define-kernel.js'
import { LANES, SUM_OF } from './_weights.js'

/**
 * softmax(scale q k^T) v over the cached positions that a row sees, in one pass (online softmax, arXiv:1805.02867). Query head h uses
 * key-value head h / (heads / keyValueHeads); a row at position p sees max(0, p - window + 1) to p.
 * Bindings q, y F32 [T, heads, D], keys and values F32 [capacity, keyValueHeads, D]. Override D.
 * Dispatch: a workgroup of 64 for a row's head, 64 positions at a time. Tolerance: 2^-18 of the largest value.
 */
export const attention = defineKernel({
  name: 'attention',
  bindings: {
    q: { access: 'read', type: 'f32' },
    keys: { access: 'read', type: 'f32' },
    values: { access: 'read', type: 'f32' },
    y: { access: 'read-write', type: 'f32' },
  },
  params: {
    rows: 'u32',
    firstRow: 'u32',
    begin: 'u32',
    window: 'u32',
    heads: 'u32',
    keyValueHeads: 'u32',
    scale: 'f32',
  },
  overrides: { D: 64 },
  workgroup: [LANES, 1, 1],
  declarations: `
${SUM_OF}

var<workgroup> query: array<f32, D>;
var<workgroup> total: array<f32, D>;
var<workgroup> share: array<f32, ${LANES}>;

fn largest_of(value: f32, lane: u32) -> f32 {
  partials[lane] = value;
  for (var half = 32u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { partials[lane] = max(partials[lane], partials[lane + half]); }
  }
  workgroupBarrier();
  let largest = partials[0];
  workgroupBarrier();
  return largest;
}

const LOWEST = -3.4e38;`,
  main: `
let item = group.x + group.y * groups.x;
if (item >= params.rows * params.heads) { return; }
let row = item / params.heads;
let head = item % params.heads;
let width = params.keyValueHeads * D;
let kv = (head / (params.heads / params.keyValueHeads)) * D;
let at = ((params.firstRow + row) * params.heads + head) * D;
let end = params.begin + row + 1u;
let start = end - min(end, params.window);
for (var d = lane; d < D; d += ${LANES}u) {
  query[d] = q[at + d];
  total[d] = 0.0;
}
workgroupBarrier();
var highest = LOWEST;
var weight = 0.0;
for (var first = start; first < end; first += ${LANES}u) {
  let position = first + lane;
  var score = LOWEST;
  if (position < end) {
    var dot = 0.0;
    for (var d = 0u; d < D; d++) { dot += query[d] * keys[position * width + kv + d]; }
    score = dot * params.scale;
  }
  let now = max(highest, largest_of(score, lane));
  let shrink = exp(highest - now);
  share[lane] = select(0.0, exp(score - now), position < end);
  weight = weight * shrink + sum_of(share[lane], lane);
  highest = now;
  let count = min(${LANES}u, end - first);
  for (var d = lane; d < D; d += ${LANES}u) {
    var sum = total[d] * shrink;
    for (var p = 0u; p < count; p++) { sum += share[p] * values[(first + p) * width + kv + d]; }
    total[d] = sum;
  }
  workgroupBarrier();
}
for (var d = lane; d < D; d += ${LANES}u) { y[at + d] = total[d] / weight; }`,
  grid: ({ rows, heads }) => foldedGrid(rows * heads),
})
