import type { FloatDType } from '@polygraft/tensor'

/** Values of the override DTYPE. */
export const DTYPE_CODES: Readonly<Partial<Record<FloatDType, number>>> = { F32: 0, BF16: 1, F16: 2 }

/** `weight_at(i)`: element i of binding `w` as F32; 16-bit elements lie two in a word, and stay so. Needs the override DTYPE. */
export const WEIGHT_AT = `
fn weight_at(i: u32) -> f32 {
  if (DTYPE == 0u) { return bitcast<f32>(w[i]); }
  let half = (w[i >> 1u] >> ((i & 1u) * 16u)) & 0xffffu;
  if (DTYPE == 1u) { return bitcast<f32>(half << 16u); }
  return unpack2x16float(half).x;
}`

/** `sum_of(value)`: the sum over a workgroup of 64, given to all of it. */
export const SUM_OF = `
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
}`

/** Lanes of a workgroup that reduces. */
export const LANES = 64
