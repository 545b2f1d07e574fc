import { defineKernel, divideUp } from '../define-kernel.js'

/**
 * Softmax over all E logits, the k most probable experts of each row, of equal ones the lower index first, and their weights.
 * Bindings logits, probabilities F32 [T, E], experts u32 and weights F32 [T, k]. Dispatch: one invocation for a row.
 * Tolerance: 2^-20 absolute; experts exact where no two probabilities are that close.
 */
export const gateTopK = defineKernel({
  name: 'gate',
  bindings: {
    logits: { access: 'read', type: 'f32' },
    probabilities: { access: 'read-write', type: 'f32' },
    experts: { access: 'read-write', type: 'u32' },
    weights: { access: 'read-write', type: 'f32' },
  },
  params: { rows: 'u32', numExperts: 'u32', topK: 'u32', normalize: 'u32' },
  workgroup: [64, 1, 1],
  main: `
if (id.x >= params.rows) { return; }
let at = id.x * params.numExperts;
var highest = logits[at];
for (var e = 1u; e < params.numExperts; e++) { highest = max(highest, logits[at + e]); }
var sum = 0.0;
for (var e = 0u; e < params.numExperts; e++) {
  let share = exp(logits[at + e] - highest);
  probabilities[at + e] = share;
  sum += share;
}
for (var e = 0u; e < params.numExperts; e++) { probabilities[at + e] /= sum; }
let out = id.x * params.topK;
var chosen = 0.0;
for (var j = 0u; j < params.topK; j++) {
  var best = 0u;
  var most = -1.0;
  for (var e = 0u; e < params.numExperts; e++) {
    var taken = false;
    for (var i = 0u; i < j; i++) { taken = taken || experts[out + i] == e; }
    if (!taken && probabilities[at + e] > most) {
      best = e;
      most = probabilities[at + e];
    }
  }
  experts[out + j] = best;
  weights[out + j] = most;
  chosen += most;
}
if (params.normalize != 0u) {
  for (var j = 0u; j < params.topK; j++) { weights[out + j] /= chosen; }
}`,
  grid: ({ rows }) => [divideUp(rows, 64), 1, 1],
})
