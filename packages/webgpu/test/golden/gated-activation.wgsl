// gated activation
@group(0) @binding(0) var<storage, read> up: array<f32>;
@group(0) @binding(1) var<storage, read_write> gate: array<f32>;
struct Params {
  count: u32,
}
@group(0) @binding(2) var<uniform> params: Params;
override ACTIVATION: u32 = 0u;

fn erf_of(x: f32) -> f32 {
  let a = min(abs(x), 9.0);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return sign(x) * (1.0 - p * exp(-a * a));
}

fn activated(x: f32) -> f32 {
  if (ACTIVATION == 0u) { return x / (1.0 + exp(min(-x, 80.0))); }
  if (ACTIVATION == 1u) { return 0.5 * x * (1.0 + erf_of(x * 0.70710678)); }
  if (ACTIVATION == 2u) {
    let inner = 0.79788456 * (x + 0.044715 * x * x * x);
    return 0.5 * x * (1.0 + tanh(clamp(inner, -10.0, 10.0)));
  }
  return max(x, 0.0);
}

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let i = id.x + id.y * (groups.x * 64u);
  if (i >= params.count) { return; }
  gate[i] = activated(gate[i]) * up[i];
}
