/** Numbers of one step of AdamW (arXiv:1711.05101). */
export interface AdamWScalars {
  /** On the gradient: what clipping and accumulation leave of it. */
  readonly factor: number
  readonly beta1: number
  readonly beta2: number
  readonly eps: number
  readonly rate: number
  /** Decoupled: a value is multiplied by 1 - rate * weightDecay. */
  readonly weightDecay: number
  /** Counts from 1. */
  readonly step: number
}

/**
 * The loops of training that are no products. Operands are addresses (bytes, multiples of 4) of F32 in one memory, indices are words. All
 * arithmetic is F32, every step rounded, but for squares; sums over a row go lane by lane (element i to lane i mod 4), then
 * (0 + 1) + (2 + 3). Rows follow one another without gaps.
 */
export interface TrainingLoops {
  /** x = 0. */
  clear(x: number, count: number): void
  /** out = x. */
  copy(x: number, out: number, count: number): void
  /** RMSNorm (arXiv:1910.07467): r = 1 / sqrt(mean(x^2) + eps) to scales [rows], y = x r weight; x, y [rows, width]. */
  norm(x: number, weight: number, y: number, scales: number, rows: number, width: number, eps: number): void
  /** dx = or += weight dy r - x r^3 sum(weight dy x) / width. */
  normBackward(
    x: number,
    weight: number,
    scales: number,
    dy: number,
    dx: number,
    rows: number,
    width: number,
    adds: boolean,
  ): void
  /** hidden = gate sigmoid(gate) up. */
  silu(gate: number, up: number, hidden: number, count: number): void
  /** gate and up become their gradients, given that of hidden. */
  siluBackward(gate: number, up: number, dHidden: number, count: number): void
  /** Row i of scores [rows, stride] becomes softmax(scale x) over elements max(0, i - window + 1) to i, and 0 elsewhere. Stride: a multiple of 4. */
  causalSoftmax(scores: number, rows: number, stride: number, window: number, scale: number): void
  /** dp of row i = p (dp - sum(p dp)) scale; `p` as causalSoftmax leaves it, 0 beyond element i. */
  softmaxBackward(p: number, dp: number, rows: number, stride: number, scale: number): void
  /** x [rows, width] = softmax(x) weights[row]; the row's maximum and its sum of e^(x - maximum) to stats [rows, 2]. */
  weightedSoftmax(x: number, rows: number, width: number, weights: number, stats: number): void
  /**
   * RoPE (arXiv:2104.09864) in place on x [rows, heads, headDim] with cos and sin [rows, rotated / 2]: elements i and i + rotated / 2 turn
   * together; `isBack` turns the other way, which is the gradient.
   */
  rotate(
    x: number,
    cos: number,
    sin: number,
    rows: number,
    heads: number,
    headDim: number,
    rotated: number,
    isBack: boolean,
  ): void
  /** out row i = x row indices[i]. */
  gather(x: number, indices: number, out: number, count: number, width: number): void
  /** out row t += the sum over s of weights[t, s] y row places[t, s], in the order of s; places and weights [rows, topK]. */
  combine(
    y: number,
    places: number,
    weights: number,
    out: number,
    rows: number,
    topK: number,
    width: number,
  ): void
  /** With d row sources[i]: dots[i] = d . y row i, dy row i = weights[i] d. */
  spread(
    d: number,
    sources: number,
    y: number,
    weights: number,
    dy: number,
    dots: number,
    count: number,
    width: number,
  ): void
  adamW(
    value: number,
    gradient: number,
    first: number,
    second: number,
    count: number,
    scalars: AdamWScalars,
  ): void
  /** The sum of squares in F64. */
  squares(x: number, count: number): number
}

/** The nine numbers that a step computes with. */
export function adamWNumbers(scalars: AdamWScalars): number[] {
  const { factor, beta1, beta2, eps, rate, weightDecay, step } = scalars
  const size = rate / (1 - beta1 ** step)
  const root = Math.sqrt(1 - beta2 ** step)
  return [factor, beta1, 1 - beta1, beta2, 1 - beta2, 1 - rate * weightDecay, size, root, eps]
}
