import type { Problem } from '@polygraft/tensor'

/** Tensor `name` is in checkpoint `has` but not in `lacks`. */
export function missingTensor(name: string, has: string, lacks: string): Problem {
  return {
    code: 'missing-tensor',
    message: `${has} has a tensor that ${lacks} lacks`,
    tensor: name,
    next: 'Use checkpoints of one model family and size, with all their shards.',
  }
}

/** Shapes of two checkpoints differ. */
export function shapeMismatch(name: string, expected: string, received: string): Problem {
  return { code: 'shape-mismatch', message: 'Shapes differ', tensor: name, expected, received }
}

/** A tensor that arithmetic is asked of is quantised or holds integers. */
export function notFloat(name: string, role: string, dtype: string): Problem {
  return {
    code: 'not-float',
    message: `Arithmetic is not defined on a tensor of ${role}`,
    tensor: name,
    expected: 'F64, F32, F16 or BF16',
    received: dtype,
    next: 'Use the unquantised checkpoint.',
  }
}

/** Problems of a factor that is not finite. */
export function lambdaProblems(lambda: number, name = 'lambda'): Problem[] {
  if (Number.isFinite(Math.fround(lambda))) return []
  const next = 'Give a number such as 1 or 0.8.'
  return [
    {
      code: 'bad-lambda',
      message: `${name} is not finite in F32`,
      expected: 'a number within 3.4e38',
      received: `${lambda}`,
      next,
    },
  ]
}

/** Problems of a share of elements that is kept. */
export function densityProblems(density: number): Problem[] {
  if (density > 0 && density <= 1) return []
  return [
    {
      code: 'bad-density',
      message: 'The density is no share of elements',
      expected: 'above 0, at most 1',
      received: `${density}`,
    },
  ]
}
