// combine experts
@group(0) @binding(0) var<storage, read> weights: array<f32>;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> hidden: array<f32>;
struct Params {
  count: u32,
  columns: u32,
  topK: u32,
  factor: f32,
}
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * (groups.x * 64u);
  if (i >= params.count) { return; }
  let row = i / params.columns;
  var sum = 0.0;
  for (var j = 0u; j < params.topK; j++) {
    let slot = row * params.topK + j;
    sum += weights[slot] * y[slot * params.columns + i % params.columns];
  }
  hidden[i] += params.factor * sum;
}
