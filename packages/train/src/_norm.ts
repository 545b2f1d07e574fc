import type { Floats } from './matmul.js'
import type { Vector } from './parameters.js'

/** RMSNorm (arXiv:1910.07467): y = x r * w with r = 1 / sqrt(mean(x^2) + eps), per row of `width`. Keeps r in `scales` [rows]. */
export function rmsNorm(
  x: Floats,
  weight: Floats,
  eps: number,
  rows: number,
  width: number,
  y: Floats,
  scales: Floats,
): void {
  for (let i = 0; i < rows; i++) {
    const at = i * width
    let squares = 0
    for (let j = 0; j < width; j++) squares += x[at + j]! * x[at + j]!
    const scale = 1 / Math.sqrt(squares / width + eps)
    scales[i] = scale
    for (let j = 0; j < width; j++) y[at + j] = x[at + j]! * scale * weight[j]!
  }
}

/** dx (+)= r (w dy - x r^2 mean(w dy x)), and the weight's gradient += sum over rows of dy x r, where it is trained. */
export function rmsNormBackward(
  x: Floats,
  weight: Vector,
  scales: Floats,
  dy: Floats,
  rows: number,
  width: number,
  dx: Floats,
  add: boolean,
): void {
  const { value, gradient } = weight
  if (gradient) normWeightGradient(x, scales, dy, rows, width, gradient)
  for (let i = 0; i < rows; i++) {
    const at = i * width
    const scale = scales[i]!
    let along = 0
    for (let j = 0; j < width; j++) along += dy[at + j]! * value[j]! * x[at + j]!
    const back = (along * scale * scale * scale) / width
    if (add)
      for (let j = 0; j < width; j++) dx[at + j]! += dy[at + j]! * value[j]! * scale - x[at + j]! * back
    else for (let j = 0; j < width; j++) dx[at + j] = dy[at + j]! * value[j]! * scale - x[at + j]! * back
  }
}

function normWeightGradient(
  x: Floats,
  scales: Floats,
  dy: Floats,
  rows: number,
  width: number,
  gradient: Floats,
): void {
  for (let i = 0; i < rows; i++) {
    const at = i * width
    const scale = scales[i]!
    for (let j = 0; j < width; j++) gradient[j]! += dy[at + j]! * x[at + j]! * scale
  }
}
