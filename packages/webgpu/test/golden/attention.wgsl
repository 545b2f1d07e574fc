// attention
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> keys: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
struct Params {
  rows: u32,
  firstRow: u32,
  begin: u32,
  window: u32,
  heads: u32,
  keyValueHeads: u32,
  scale: f32,
}
@group(0) @binding(4) var<uniform> params: Params;
override D: u32 = 64u;

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

var<workgroup> query: array<f32, D>;
var<workgroup> total: array<f32, D>;
var<workgroup> share: array<f32, 64>;

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

const LOWEST = -3.4e38;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let item = group.x + group.y * groups.x;
  if (item >= params.rows * params.heads) { return; }
  let row = item / params.heads;
  let head = item % params.heads;
  let width = params.keyValueHeads * D;
  let kv = (head / (params.heads / params.keyValueHeads)) * D;
  let at = ((params.firstRow + row) * params.heads + head) * D;
  let end = params.begin + row + 1u;
  let start = end - min(end, params.window);
  for (var d = lane; d < D; d += 64u) {
    query[d] = q[at + d];
    total[d] = 0.0;
  }
  workgroupBarrier();
  var highest = LOWEST;
  var weight = 0.0;
  for (var first = start; first < end; first += 64u) {
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
    let count = min(64u, end - first);
    for (var d = lane; d < D; d += 64u) {
      var sum = total[d] * shrink;
      for (var p = 0u; p < count; p++) { sum += share[p] * values[(first + p) * width + kv + d]; }
      total[d] = sum;
    }
    workgroupBarrier();
  }
  for (var d = lane; d < D; d += 64u) { y[at + d] = total[d] / weight; }
}
