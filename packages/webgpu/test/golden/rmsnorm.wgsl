// RMSNorm
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
struct Params {
  rows: u32,
  columns: u32,
  eps: f32,
}
@group(0) @binding(3) var<uniform> params: Params;

var<workgroup> partials: array<f32, 64>;

fn sum_of(value: f32, lane: u32) -> f32 {
  partials[lane] = value;
  for (var half = 32u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { partials[lane] += partials[lane + half]; }
  }
  workgroupBarrier();
  let sum = partials[0];
  workgroupBarrier();
  return sum;
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  let at = row * params.columns;
  var squares = 0.0;
  for (var i = lane; i < params.columns; i += 64u) { squares += x[at + i] * x[at + i]; }
  let mean = sum_of(squares, lane) / f32(params.columns);
  let factor = inverseSqrt(mean + params.eps);
  for (var i = lane; i < params.columns; i += 64u) { y[at + i] = x[at + i] * factor * w[i]; }
}
