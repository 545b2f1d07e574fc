// embedding
@group(0) @binding(0) var<storage, read> tokens: array<u32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
struct Params {
  count: u32,
  columns: u32,
  firstToken: u32,
  pieceRows: u32,
  offset: u32,
  scale: f32,
}
@group(0) @binding(3) var<uniform> params: Params;
override DTYPE: u32 = 0u;

fn weight_at(i: u32) -> f32 {
  if (DTYPE == 0u) { return bitcast<f32>(w[i]); }
  let half = (w[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu;
  if (DTYPE == 1u) { return bitcast<f32>(half << 16u); }
  return unpack2x16float(half).x;
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * (groups.x * 64u);
  if (i >= params.count) { return; }
  let token = tokens[i / params.columns] - params.firstToken;
  if (token >= params.pieceRows) { return; }
  y[i] = params.scale * weight_at(params.offset + token * params.columns + i % params.columns);
}
