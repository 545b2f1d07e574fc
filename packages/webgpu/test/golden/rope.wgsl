// RoPE
@group(0) @binding(0) var<storage, read> cos: array<f32>;
@group(0) @binding(1) var<storage, read> sin: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;
struct Params {
  pairs: u32,
  heads: u32,
  headDim: u32,
  half: u32,
}
@group(0) @binding(3) var<uniform> params: Params;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let pair = id.x + id.y * (groups.x * 64u);
  if (pair >= params.pairs) { return; }
  let i = pair % params.half;
  let head = pair / params.half; // of all rows
  let turn = (head / params.heads) * params.half + i;
  let at = head * params.headDim + i;
  let a = x[at];
  let b = x[at + params.half];
  x[at] = a * cos[turn] - b * sin[turn];
  x[at + params.half] = b * cos[turn] + a * sin[turn];
}
