/*
 * The decoder's operations in plain F64, for comparison. Matrices are row-major; letters: T rows, N outputs, K inputs, D head_dim.
 */

/** y[t, n] = sum over k of x[t, k] w[n, k] + b[n]: [T, N] */
export function linearOf(
  x: ArrayLike<number>,
  w: ArrayLike<number>,
  k: number,
  b?: ArrayLike<number>,
): number[] {
  const [rows, columns] = [x.length / k, w.length / k]
  return Array.from({ length: rows * columns }, (_, i) => {
    const [t, n] = [Math.floor(i / columns), i % columns]
    let sum = b?.[n] ?? 0
    for (let j = 0; j < k; j++) sum += x[t * k + j]! * w[n * k + j]!
    return sum
  })
}

/** Each part of `w.length` elements over its root mean square. */
export function normOf(x: ArrayLike<number>, w: ArrayLike<number>, eps: number): number[] {
  const size = w.length
  return Array.from({ length: x.length }, (_, i) => {
    const begin = i - (i % size)
    let squares = 0
    for (let j = begin; j < begin + size; j++) squares += x[j]! ** 2
    return (x[i]! / Math.sqrt(squares / size + eps)) * w[i % size]!
  })
}

/** x [T, heads, D] with dimensions i and i + half of every head turned by the row's angle i. */
export function ropeOf(
  x: readonly number[],
  cos: ArrayLike<number>,
  sin: ArrayLike<number>,
  heads: number,
  headDim: number,
  half: number,
): number[] {
  return x.map((value, at) => {
    const [row, d] = [Math.floor(at / (heads * headDim)), at % headDim]
    if (d >= 2 * half) return value
    const turn = row * half + (d % half)
    return d < half
      ? value * cos[turn]! - x[at + half]! * sin[turn]!
      : value * cos[turn]! + x[at - half]! * sin[turn]!
  })
}

interface AttentionShape {
  readonly heads: number
  readonly keyValueHeads: number
  readonly headDim: number
  readonly scale: number
  readonly window: number | null
}

/** Rows [begin, ...) of a sequence, whose keys and values [positions, keyValueHeads, D] begin at position 0. */
export function attentionOf(
  q: readonly number[],
  keys: readonly number[],
  values: readonly number[],
  begin: number,
  { heads, keyValueHeads, headDim, scale, window }: AttentionShape,
): number[] {
  const width = keyValueHeads * headDim
  return q.map((_, at) => {
    const [row, head, d] = [
      Math.floor(at / (heads * headDim)),
      Math.floor(at / headDim) % heads,
      at % headDim,
    ]
    const end = begin + row + 1
    const start = window === null ? 0 : Math.max(0, end - window)
    const kv = Math.floor(head / (heads / keyValueHeads)) * headDim
    const scores = Array.from({ length: end - start }, (_, p) => {
      let dot = 0
      for (let i = 0; i < headDim; i++) dot += q[at - d + i]! * keys[(start + p) * width + kv + i]!
      return dot * scale
    })
    const shares = softmaxOf(scores)
    return shares.reduce((sum, share, p) => sum + share * values[(start + p) * width + kv + d]!, 0)
  })
}

export function softmaxOf(logits: readonly number[]): number[] {
  const highest = logits.reduce((a, b) => Math.max(a, b))
  const shares = logits.map((logit) => Math.exp(logit - highest))
  const sum = shares.reduce((a, b) => a + b)
  return shares.map((share) => share / sum)
}

/** erf by its series, for |x| up to 6. */
function erfOf(x: number): number {
  if (Math.abs(x) > 6) return Math.sign(x)
  let [term, sum] = [x, x]
  for (let n = 1; n < 200; n++) {
    term *= (-x * x) / n
    sum += term / (2 * n + 1)
  }
  return (2 / Math.sqrt(Math.PI)) * sum
}

export const ACTIVATIONS = {
  silu: (x: number) => x / (1 + Math.exp(-x)),
  gelu: (x: number) => 0.5 * x * (1 + erfOf(x / Math.SQRT2)),
  gelu_tanh: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x: number) => Math.max(x, 0),
}

/** The k largest, most first, of equal ones the lower index. */
export function topKOf(values: readonly number[], k: number): number[] {
  return [...values.keys()].sort((a, b) => values[b]! - values[a]! || a - b).slice(0, k)
}
