// largest of a row
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
struct Params {
  rows: u32,
  columns: u32,
}
@group(0) @binding(2) var<uniform> params: Params;

var<workgroup> keys: array<u32, 256>;
var<workgroup> places: array<u32, 256>;

// Grows with the float of these bits, -0 as +0; what is not finite is above all
fn key_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) >= 0x7f800000u) { return 0xffffffffu; }
  if (bits == 0x80000000u) { return bits; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

@compute @workgroup_size(256, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) { return; }
  var most = 0u;
  var place = params.columns;
  for (var i = lane; i < params.columns; i += 256u) {
    let key = key_of(x[row * params.columns + i]);
    if (key > most) {
      most = key;
      place = select(i, params.columns, key == 0xffffffffu);
    }
  }
  keys[lane] = most;
  places[lane] = place;
  for (var half = 128u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) {
      let key = keys[lane + half];
      let other = places[lane + half];
      if (key > keys[lane] || (key == keys[lane] && other < places[lane])) {
        keys[lane] = key;
        places[lane] = other;
      }
    }
  }
  if (lane == 0u) { y[row] = places[0]; }
}
