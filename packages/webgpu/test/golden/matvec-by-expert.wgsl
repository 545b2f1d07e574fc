// matvec by expert
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read> experts: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
struct Params {
  slots: u32,
  firstSlot: u32,
  perRow: u32,
  depth: u32,
  columns: u32,
  firstExpert: u32,
  pieceExperts: u32,
  stride: u32,
}
@group(0) @binding(4) var<uniform> params: Params;
override DTYPE: u32 = 0u;

fn weight_at(i: u32) -> f32 {
  if (DTYPE == 0u) { return bitcast<f32>(w[i]); }
  let half = (w[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu;
  if (DTYPE == 1u) { return bitcast<f32>(half << 16u); }
  return unpack2x16float(half).x;
}

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

fn dot_of(x_at: u32, w_at: u32, depth: u32, lane: u32) -> f32 {
  var sum = 0.0;
  if (DTYPE != 0u && (depth & 1u) == 0u && (w_at & 1u) == 0u) {
    for (var k = lane * 2u; k < depth; k += 128u) {
      let word = w[(w_at + k) >> 1u];
      var pair = unpack2x16float(word);
      if (DTYPE == 1u) { pair = vec2f(bitcast<f32>(word << 16u), bitcast<f32>(word & 0xffff0000u)); }
      sum += x[x_at + k] * pair.x + x[x_at + k + 1u] * pair.y;
    }
    return sum;
  }
  for (var k = lane; k < depth; k += 64u) { sum += x[x_at + k] * weight_at(w_at + k); }
  return sum;
}

var<workgroup> expert: u32;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let n = group.x + group.y * groups.x;
  let slot = params.firstSlot + group.z;
  if (n >= params.columns) { return; }
  if (lane == 0u) { expert = experts[slot] - params.firstExpert; }
  let e = workgroupUniformLoad(&expert);
  if (e >= params.pieceExperts) { return; }
  let row = slot / params.perRow;
  let sum = sum_of(dot_of(row * params.depth, e * params.stride + n * params.depth, params.depth, lane), lane);
  if (lane == 0u) { y[slot * params.columns + n] = sum; }
}
