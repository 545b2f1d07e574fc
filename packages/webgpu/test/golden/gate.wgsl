// gate
@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<storage, read_write> probabilities: array<f32>;
@group(0) @binding(2) var<storage, read_write> experts: array<u32>;
@group(0) @binding(3) var<storage, read_write> weights: array<f32>;
struct Params {
  rows: u32,
  numExperts: u32,
  topK: u32,
  normalize: u32,
}
@group(0) @binding(4) var<uniform> params: Params;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
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
  }
}
