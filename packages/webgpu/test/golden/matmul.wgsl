// matmul
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
struct Params {
  rows: u32,
  depth: u32,
  pieceRows: u32,
  columns: u32,
  to: u32,
  offset: u32,
  biased: u32,
  adds: u32,
  factor: f32,
}
@group(0) @binding(4) var<uniform> params: Params;
override DTYPE: u32 = 0u;

fn weight_at(i: u32) -> f32 {
  if (DTYPE == 0u) { return bitcast<f32>(w[i]); }
  let half = (w[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu;
  if (DTYPE == 1u) { return bitcast<f32>(half << 16u); }
  return unpack2x16float(half).x;
}

var<workgroup> xs: array<f32, 1024>; // [k, t]
var<workgroup> ws: array<f32, 1024>; // [k, n]

@compute @workgroup_size(16, 16, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let t0 = group.y * 64u;
  let n0 = group.x * 64u;
  var sums: array<vec4f, 4>;
  for (var k0 = 0u; k0 < params.depth; k0 += 16u) {
    for (var i = lane; i < 1024u; i += 256u) {
      let r = i / 16u;
      let k = k0 + i % 16u;
      let at = (i % 16u) * 64u + r;
      xs[at] = 0.0;
      ws[at] = 0.0;
      if (k < params.depth && t0 + r < params.rows) { xs[at] = x[(t0 + r) * params.depth + k]; }
      if (k < params.depth && n0 + r < params.pieceRows) {
        ws[at] = weight_at(params.offset + (n0 + r) * params.depth + k);
      }
    }
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let n = k * 64u + local.x * 4u;
      let t = k * 64u + local.y * 4u;
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
  }
}
