/**
 * What a softmax gate's choice depends on: the differences between the rows of a router R [E, H], row-major, as orthonormal
 * contrasts C R with Helmert's C [E - 1, E]; a vector that all rows share drops out. Its condition number tells how evenly experts
 * are told apart, also where the rows sum to zero, as those of `languageRouter` do.
 * @returns [E - 1, H], row-major, F64.
 */
export function routerContrasts(
  router: ArrayLike<number>,
  numExperts: number,
  hiddenSize: number,
): Float64Array {
  const contrasts = new Float64Array(Math.max(0, numExperts - 1) * hiddenSize)
  for (let h = 0; h < hiddenSize; h++) {
    let before = 0
    for (let e = 1; e < numExperts; e++) {
      before += router[(e - 1) * hiddenSize + h]!
      // The mean of the rows before it against row e.
      const difference = before / e - router[e * hiddenSize + h]!
      contrasts[(e - 1) * hiddenSize + h] = difference * Math.sqrt(e / (e + 1))
    }
  }
  return contrasts
}
