// tile kernel, integer arithmetic
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;
struct Params {
  count: u32,
  zero: u32,
  in0: u32,
  in1: u32,
  out0: u32,
  scalar0: u32,
  scalar1: u32,
}
@group(0) @binding(3) var<uniform> params: Params;

const INFINITY = 0x7f800000u;
const NAN = 0x7fc00000u;
const SIGN = 0x80000000u;
const MAGNITUDE = 0x7fffffffu;

fn is_nan(a: u32) -> bool { return (a & MAGNITUDE) > INFINITY; }

// a == b, as floats: NaN equals nothing, -0 equals +0
fn f_equal(a: u32, b: u32) -> bool {
  return !is_nan(a) && !is_nan(b) && (a == b || ((a | b) & MAGNITUDE) == 0u);
}

// size < b, for a size without sign
fn f_below(size: u32, b: u32) -> bool {
  return size <= INFINITY && b <= INFINITY && size < b;
}

// -1, 0 or 1; 0 for NaN
fn sign_of(a: u32) -> i32 {
  if (is_nan(a) || (a & MAGNITUDE) == 0u) { return 0; }
  return select(1, -1, (a & SIGN) != 0u);
}

// size > b, for a size without sign that is not NaN
fn f_above(size: u32, b: u32) -> bool {
  if (is_nan(b)) { return false; }
  return select(size > b, b != SIGN || size != 0u, (b & SIGN) != 0u);
}

fn f_sub(a: u32, b: u32) -> u32 { return f_add(a, b ^ SIGN); }

// Shifted right; a one that falls out stays as the last bit
fn shift_sticky(a: u32, by: u32) -> u32 {
  let n = min(by, 31u);
  return (a >> n) | u32((a & ((1u << n) - 1u)) != 0u);
}

// significand * 2^(exponent - 153), with the significand below 2^27, rounded to nearest, ties to even
fn round_pack(sign: u32, exponent: i32, significand: u32) -> u32 {
  let subnormal = exponent < 1;
  let e = u32(max(exponent, 1));
  let s = select(significand, shift_sticky(significand, u32(max(1 - exponent, 0))), subnormal);
  let m = (s >> 3u) + u32((s & 7u) > 4u || ((s & 7u) == 4u && (s & 8u) != 0u));
  if (e > 254u) { return sign | INFINITY; }
  return sign | min(((e - 1u) << 23u) + m, INFINITY);
}

// The significand with its hidden bit
fn significand_of(a: u32) -> u32 {
  return (a & 0x7fffffu) | select(0x800000u, 0u, (a & INFINITY) == 0u);
}

fn exponent_of(a: u32) -> i32 { return i32(max((a & INFINITY) >> 23u, 1u)); }

fn f_add(a: u32, b: u32) -> u32 {
  if (is_nan(a) || is_nan(b)) { return NAN; }
  let swap = (a & MAGNITUDE) < (b & MAGNITUDE);
  let x = select(a, b, swap);
  let y = select(b, a, swap);
  let unlike = ((x ^ y) & SIGN) != 0u;
  if ((x & MAGNITUDE) == INFINITY) {
    return select(x, NAN, unlike && (y & MAGNITUDE) == INFINITY);
  }
  let e = exponent_of(x);
  let p = significand_of(x) << 3u;
  let q = shift_sticky(significand_of(y) << 3u, u32(e - exponent_of(y)));
  if (unlike) {
    let s = p - q;
    if (s == 0u) { return 0u; }
    let up = min(countLeadingZeros(s) - 5u, u32(e - 1));
    return round_pack(x & SIGN, e - i32(up), s << up);
  }
  let s = p + q;
  let carry = s >> 27u;
  return round_pack(x & SIGN, e + i32(carry), shift_sticky(s, carry));
}

// The upper half of the product, with a one below it kept as the last bit
fn multiply_high(a: u32, b: u32) -> u32 {
  let low = (a & 0xffffu) * (b & 0xffffu);
  let one = (a & 0xffffu) * (b >> 16u) + (low >> 16u);
  let two = (a >> 16u) * (b & 0xffffu) + (one & 0xffffu);
  let high = (a >> 16u) * (b >> 16u) + (one >> 16u) + (two >> 16u);
  return high | u32(((two << 16u) | (low & 0xffffu)) != 0u);
}

fn f_mul(a: u32, b: u32) -> u32 {
  let sign = (a ^ b) & SIGN;
  let x = a & MAGNITUDE;
  let y = b & MAGNITUDE;
  if (x > INFINITY || y > INFINITY) { return NAN; }
  if (x == INFINITY || y == INFINITY) { return select(sign | INFINITY, NAN, x == 0u || y == 0u); }
  if (x == 0u || y == 0u) { return sign; }
  let up_x = countLeadingZeros(significand_of(x)) - 8u;
  let up_y = countLeadingZeros(significand_of(y)) - 8u;
  let s = multiply_high(significand_of(x) << (up_x + 6u), significand_of(y) << (up_y + 6u));
  let carry = s >> 27u;
  let e = exponent_of(x) + exponent_of(y) - i32(up_x + up_y) - 127 + i32(carry);
  return round_pack(sign, e, shift_sticky(s, carry));
}

fn f_div(a: u32, b: u32) -> u32 {
  let sign = (a ^ b) & SIGN;
  let x = a & MAGNITUDE;
  let y = b & MAGNITUDE;
  if (x > INFINITY || y > INFINITY || (x == y && (x == 0u || x == INFINITY))) { return NAN; }
  if (x == INFINITY || y == 0u) { return sign | INFINITY; }
  if (x == 0u || y == INFINITY) { return sign; }
  let up_x = countLeadingZeros(significand_of(x)) - 8u;
  let up_y = countLeadingZeros(significand_of(y)) - 8u;
  let divisor = significand_of(y) << up_y;
  var rest = significand_of(x) << up_x;
  var e = exponent_of(x) - i32(up_x) - exponent_of(y) + i32(up_y) + 127;
  if (rest < divisor) {
    rest <<= 1u;
    e -= 1;
  }
  var quotient = 0u;
  for (var i = 0u; i < 27u; i++) {
    quotient <<= 1u;
    if (rest >= divisor) {
      rest -= divisor;
      quotient |= 1u;
    }
    rest <<= 1u;
  }
  return round_pack(sign, e, quotient | u32(rest != 0u));
}

fn decode_f16(h: u32) -> u32 {
  let sign = (h & 0x8000u) << 16u;
  let a = h & 0x7fffu;
  if (a >= 0x7c00u) { return sign | INFINITY | ((a & 0x3ffu) << 13u); }
  if (a >= 0x400u) { return sign | ((a << 13u) + 0x38000000u); }
  if (a == 0u) { return sign; }
  let up = countLeadingZeros(a) - 21u;
  return sign | ((113u - up) << 23u) | (((a << up) & 0x3ffu) << 13u);
}

fn encode_f16(v: u32) -> u32 {
  let sign = (v >> 16u) & 0x8000u;
  let a = v & MAGNITUDE;
  if (a > INFINITY) { return 0x7e00u; }
  if (a >= 0x47800000u) { return sign | 0x7c00u; }
  if (a >= 0x38800000u) { return sign | ((a - 0x38000000u + 0xfffu + ((a >> 13u) & 1u)) >> 13u); }
  if (a <= 0x33000000u) { return sign; }
  let shift = 126u - (a >> 23u);
  let significand = (a & 0x7fffffu) | 0x800000u;
  let m = significand >> shift;
  let rest = significand & ((1u << shift) - 1u);
  let half = 1u << (shift - 1u);
  return sign | (m + u32(rest > half || (rest == half && (m & 1u) == 1u)));
}

fn encode_bf16(v: u32) -> u32 {
  if (is_nan(v)) { return 0x7fc0u; }
  return (v + 0x7fffu + ((v >> 16u) & 1u)) >> 16u;
}

fn encode_f32(v: u32) -> u32 { return select(v, NAN, is_nan(v)); }

var<workgroup> tally: array<atomic<u32>, 3>;

@compute @workgroup_size(64, 1, 1)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
  let pair = id.x + id.y * (groups.x * 64u);
  if (pair * 2u < params.count) {
    for (var k = 0u; k < 2u; k++) {
      let index = pair * 2u + k;
      let v0 = x[params.in0 + index];
      let v1 = x[params.in1 + index];
      let v2 = f_add(v0, v1);
      var v3 = NAN;
      if (!is_nan(v2)) {
        var elected = sign(sign_of(v0) + sign_of(v1));
        elected = select(elected, 1, elected == 0);
        var terms = array<u32, 2>(v0, v1);
        var weights = array<u32, 2>(params.scalar0, params.scalar1);
        var total = 0u;
        var weight = 0u;
        for (var t = 0u; t < 2u; t++) {
          if (elected == 0 || sign_of(terms[t]) != elected) { continue; }
          total = f_add(total, terms[t]);
          weight = f_add(weight, weights[t]);
        }
        v3 = f_div(total, select(weight, 0x3f800000u, weight == 0u));
      }
      let stored0 = encode_f32(v3);
      y[params.out0 + index] = stored0;
      if ((stored0 & MAGNITUDE) >= 0x7f800000u && index < params.count) {
        atomicAdd(&tally[2], 1u);
      }
    }
  }
  workgroupBarrier();
  for (var i = lane; i < 3u; i += 64u) {
    atomicAdd(&counts[i], atomicLoad(&tally[i]));
  }
}
