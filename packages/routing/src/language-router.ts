import { ModelError } from '@polygraft/tensor'

/*
 * Letters: E experts, one class of text each (expert 0: the original languages), H hidden, T tokens.
 */

/** First and second moments of what one layer's router reads, over the tokens of each class of text. F64. */
export interface RouterSamples {
  readonly hiddenSize: number
  /** Tokens of each class, [E] */
  readonly tokens: Float64Array
  /** Sums of x, [E, H] */
  readonly sums: Float64Array
  /** Sum over all classes of x x^T, [H, H]; only where LDA is wanted. */
  readonly products?: Float64Array
}

/** Samples without a token. */
export function createRouterSamples(
  numExperts: number,
  hiddenSize: number,
  withProducts: boolean,
): RouterSamples {
  return {
    hiddenSize,
    tokens: new Float64Array(numExperts),
    sums: new Float64Array(numExperts * hiddenSize),
    ...(withProducts ? { products: new Float64Array(hiddenSize * hiddenSize) } : {}),
  }
}

/** Adds tokens of one class, `rows` [T, H], to `samples` in place. */
export function addRouterSamples(samples: RouterSamples, expert: number, rows: Float32Array): void {
  const { hiddenSize, tokens, sums, products } = samples
  const count = rows.length / hiddenSize
  tokens[expert]! += count
  for (let t = 0; t < count; t++) {
    const x = rows.subarray(t * hiddenSize, (t + 1) * hiddenSize)
    for (let h = 0; h < hiddenSize; h++) sums[expert * hiddenSize + h]! += x[h]!
    if (products) addOuter(products, x)
  }
}

/** The lower triangle is enough. */
function addOuter(products: Float64Array, x: Float32Array): void {
  for (let i = 0; i < x.length; i++) for (let j = 0; j <= i; j++) products[i * x.length + j]! += x[i]! * x[j]!
}

export interface LanguageRouterOptions {
  /** `means`: along the differences of the class means. `lda`: those whitened by the covariance within classes. */
  readonly kind: 'means' | 'lda'
  /** By how much, on average, the logit of a class's own expert is above the mean of all. Default 2. */
  readonly lead?: number
  /** LDA only: share of the mean variance that is added to the diagonal of the covariance. Default 0.1. */
  readonly shrinkage?: number
}

/**
 * A router [E, H], row-major, that sends each class of text to its own expert from the start (our inference; the paper
 * does not say how it initialises): with mu_e the class's mean of the tensor that the router reads and mu the mean of
 * the E means, r_e = tau d_e / |d_e|, d_e = mu_e - mu; for `lda` (Fisher's linear discriminant) d_e = S^-1 (mu_e - mu) with
 * S the shrunk covariance within classes. tau is chosen so that the mean over e of r_e . (mu_e - mu) is `lead`.
 * @throws ModelError "no-samples" for a class without tokens; "same-samples" when two classes have the same mean.
 */
export function languageRouter(samples: RouterSamples, options: LanguageRouterOptions): Float32Array {
  const { hiddenSize, tokens } = samples
  const { kind, lead = 2 } = options
  const empty = [...tokens.keys()].filter((e) => tokens[e] === 0)
  if (empty.length > 0)
    throw new ModelError({
      code: 'no-samples',
      message: 'An expert has no text to initialise its router from',
      expected: 'some tokens for each expert',
      received: `none for ${empty.map((e) => `expert ${e}`).join(', ')}`,
    })
  const offsets = meanOffsets(samples)
  const directions = kind === 'lda' ? whiten(samples, offsets, options.shrinkage ?? 0.1) : offsets
  const units = directions.map(unit)
  if (units.some((u) => u === undefined))
    throw new ModelError({
      code: 'same-samples',
      message: 'The texts of the experts are the same to this layer: no router can tell them apart',
      next: 'Give text in a language of its own for each expert.',
    })
  const leads = units.map((u, e) => dot(u!, offsets[e]!))
  const tau = lead / (leads.reduce((a, b) => a + b, 0) / leads.length)
  const router = new Float32Array(tokens.length * hiddenSize)
  for (const [e, u] of units.entries())
    for (let h = 0; h < hiddenSize; h++) router[e * hiddenSize + h] = tau * u![h]!
  return router
}

/** mu_e - mu for each class. */
function meanOffsets({ hiddenSize, tokens, sums }: RouterSamples): Float64Array[] {
  const means = Array.from(tokens, (count, e) =>
    sums.subarray(e * hiddenSize, (e + 1) * hiddenSize).map((sum) => sum / count),
  )
  const centre = new Float64Array(hiddenSize)
  for (const mean of means) for (let h = 0; h < hiddenSize; h++) centre[h]! += mean[h]! / means.length
  return means.map((mean) => mean.map((value, h) => value - centre[h]!))
}

/** S^-1 d for each d, by Cholesky's factorisation. */
function whiten(samples: RouterSamples, offsets: readonly Float64Array[], shrinkage: number): Float64Array[] {
  const { hiddenSize: size, tokens, sums, products } = samples
  if (!products)
    throw new ModelError({
      code: 'no-samples',
      message: 'LDA needs the products of the samples, which were not taken',
    })
  const total = tokens.reduce((a, b) => a + b, 0)
  const covariance = products.map((product) => product / total)
  for (const [e, count] of tokens.entries())
    for (let i = 0; i < size; i++)
      for (let j = 0; j <= i; j++)
        covariance[i * size + j]! -= (sums[e * size + i]! * sums[e * size + j]!) / count / total
  let trace = 0
  for (let i = 0; i < size; i++) trace += covariance[i * size + i]!
  for (let i = 0; i < size; i++) covariance[i * size + i]! += (shrinkage * trace) / size + Number.MIN_VALUE
  const factor = cholesky(covariance, size)
  return offsets.map((offset) => solve(factor, offset, size))
}

/** L with L L^T = `a` (its lower triangle), in place of that triangle. */
function cholesky(a: Float64Array, size: number): Float64Array {
  for (let j = 0; j < size; j++) {
    for (let i = j; i < size; i++) {
      let sum = a[i * size + j]!
      for (let k = 0; k < j; k++) sum -= a[i * size + k]! * a[j * size + k]!
      a[i * size + j] = i === j ? Math.sqrt(Math.max(sum, Number.MIN_VALUE)) : sum / a[j * size + j]!
    }
  }
  return a
}

/** x with L L^T x = b. */
function solve(factor: Float64Array, b: Float64Array, size: number): Float64Array {
  const x = b.slice()
  for (let i = 0; i < size; i++) {
    for (let k = 0; k < i; k++) x[i]! -= factor[i * size + k]! * x[k]!
    x[i]! /= factor[i * size + i]!
  }
  for (let i = size - 1; i >= 0; i--) {
    for (let k = i + 1; k < size; k++) x[i]! -= factor[k * size + i]! * x[k]!
    x[i]! /= factor[i * size + i]!
  }
  return x
}

/** `v` at length 1; undefined for a vector of zeros, or one with values that are not finite. */
function unit(v: Float64Array): Float64Array | undefined {
  const norm = Math.sqrt(dot(v, v))
  return norm > 0 && Number.isFinite(norm) ? v.map((value) => value / norm) : undefined
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!
  return sum
}

/** Rows of a router that are this alike in direction send the same tokens to both experts: worth a warning. */
export const ALIKE_COSINE = 0.99

/** Pairs of experts whose rows of `router` [E, H] point the same way (cosine above `ALIKE_COSINE`), or are zero both. */
export function alikeExperts(
  router: ArrayLike<number>,
  numExperts: number,
  hiddenSize: number,
): readonly (readonly [number, number])[] {
  const rows = Array.from({ length: numExperts }, (_, e) =>
    Float64Array.from({ length: hiddenSize }, (_, h) => router[e * hiddenSize + h]!),
  )
  const pairs: [number, number][] = []
  for (let a = 0; a < numExperts; a++)
    for (let b = a + 1; b < numExperts; b++) {
      const norms = Math.sqrt(dot(rows[a]!, rows[a]!) * dot(rows[b]!, rows[b]!))
      if (dot(rows[a]!, rows[b]!) >= ALIKE_COSINE * norms) pairs.push([a, b])
    }
  return pairs
}
