import type { JsonValue, Problem } from '@polygraft/tensor'

/** A parameter of a merge: one number, or one for each tensor by name (gradients over layers, filters). */
export type PerTensor = number | ((tensor: string) => number)

/** The parameter's value for a tensor. */
export function valueFor(parameter: PerTensor, tensor: string): number {
  return typeof parameter === 'number' ? parameter : parameter(tensor)
}

/** What `check` finds of a parameter: once for a number, else for each of the tensors, with its name. */
export function perTensorProblems(
  parameter: PerTensor,
  tensors: Iterable<string>,
  check: (value: number) => readonly Problem[],
): Problem[] {
  if (typeof parameter === 'number') return [...check(parameter)]
  return [...tensors].flatMap((tensor) => check(parameter(tensor)).map((problem) => ({ ...problem, tensor })))
}

/** A parameter as plain data for provenance: a number where it is one for all tensors, else the numbers by tensor. */
export function recordOf(parameter: PerTensor, tensors: readonly string[]): JsonValue {
  if (typeof parameter === 'number') return parameter
  const values = tensors.map((tensor) => [tensor, parameter(tensor)] as const)
  const [first] = values
  if (first && values.every(([, value]) => value === first[1])) return first[1]
  return Object.fromEntries(values)
}
