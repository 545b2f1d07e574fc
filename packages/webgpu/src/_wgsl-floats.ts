/*
 * F32 arithmetic on bit patterns, for tile kernels: WGSL promises neither subnormals nor NaN, lets a compiler fuse a multiplication
 * and an addition, and divides within 2.5 ulp only. So values are u32, tests are on integers, and the operations come in two
 * forms: `native` uses the adapter's floats, and is taken where the probe finds them exact; `integer` is exact everywhere.
 */

/** How tile kernels add and multiply. */
export type TileArithmetic = 'native' | 'integer'

/** The functions f_add, f_sub, f_mul, f_div, f_equal, f_below and the tests they need; all on bits of F32. */
export function floatFunctions(arithmetic: TileArithmetic): string {
  return [TESTS, ROUND, arithmetic === 'native' ? NATIVE : INTEGER, DIVIDE]
    .map((part) => part.trim())
    .join('\n\n')
}

const TESTS = `
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
`

/**
 * x - y is x + -y to the bit, but for the sign of NaN. A compiler that reads floats as numbers would fuse a * b + c, or take x - x for 0
 * though x be infinite; it cannot see through the xor with a zero that it is only given when the kernel runs.
 */
const NATIVE = `
fn f_add(a: u32, b: u32) -> u32 {
  return bitcast<u32>(bitcast<f32>(a) + bitcast<f32>(b ^ params.zero)) ^ params.zero;
}

fn f_mul(a: u32, b: u32) -> u32 {
  return bitcast<u32>(bitcast<f32>(a) * bitcast<f32>(b ^ params.zero)) ^ params.zero;
}
`

const ROUND = `
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
`

const INTEGER = `
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
`

/** Long division in both forms, since WGSL's own is not rounded correctly. */
const DIVIDE = `
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
`
