/** Mean and standard error of the mean; the error of one value is NaN. */
export function meanAndError(values: readonly number[]): { readonly mean: number; readonly error: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  return { mean, error: Math.sqrt(squares / (values.length - 1) / values.length) }
}

/** 'mean ± error', or the mean alone of one value. */
export function formatMean(values: readonly number[], digits: number, sign = ''): string {
  const { mean, error } = meanAndError(values)
  const shown = `${mean > 0 ? sign : ''}${mean.toFixed(digits)}`
  return Number.isNaN(error) ? shown : `${shown} ± ${error.toFixed(digits)}`
}
