import { matchesName } from '@polygraft/tensor'
import { z } from 'zod'

/** What a parameter is in the end, for one tensor. */
export type Scalar = number | boolean | string

/** The value of a parameter for the tensors whose names hold `filter`; without one, or with `*`, for all. */
interface Conditional {
  readonly filter?: string | undefined
  readonly value: Scalar | readonly Scalar[]
}

/**
 * A parameter as a recipe gives it: one value; a gradient, whose values are spread evenly over the layers and interpolated
 * between; or a list of conditions, of which the first that fits a tensor's name counts.
 */
export type Setting = Scalar | readonly Scalar[] | Conditional | readonly Conditional[]

const scalar = z.union([z.number(), z.boolean(), z.string()], { error: 'a number, true, false or a text' })
const conditional = z.strictObject({
  filter: z
    .string()
    .optional()
    .describe('A part of the names of the tensors that it is for; `*` in it stands for anything.'),
  value: z.union([scalar, z.array(scalar).min(1)], { error: 'a value, or a list of values over the layers' }),
})

/** The schema of a `Setting`. */
export const settingSchema = z.union(
  [scalar, conditional, z.array(scalar).min(1), z.array(conditional).min(1)],
  {
    error: 'a value, a list of values over the layers, or a list of {filter, value}',
  },
)

/**
 * The value of `setting` for tensor `name`, which lies at `t` of the way through the layers (0 the first, 1 the last).
 * Numbers between two of a gradient are interpolated; of other gradients the value before counts. Undefined where no condition fits.
 */
export function resolveSetting(setting: Setting, name: string, t: number): Scalar | undefined {
  if (isScalar(setting)) return setting
  if (isGradient(setting)) return along(setting, t)
  const conditions = Array.isArray(setting) ? (setting as readonly Conditional[]) : [setting as Conditional]
  const value = conditions.find(({ filter }) => matches(filter, name))?.value
  return value === undefined || isScalar(value) ? value : along(value, t)
}

/** Every value that `setting` can come to at the ends of its gradients, for checking ranges. */
export function settingValues(setting: Setting): readonly Scalar[] {
  if (isScalar(setting)) return [setting]
  if (isGradient(setting)) return setting
  const conditions = Array.isArray(setting) ? (setting as readonly Conditional[]) : [setting as Conditional]
  return conditions.flatMap(({ value }) => value)
}

/** Whether a condition holds for a tensor; one without a filter does for all. */
function matches(filter: string | undefined, name: string): boolean {
  return filter === undefined || matchesName(filter, name)
}

function isScalar(value: unknown): value is Scalar {
  return typeof value !== 'object'
}

function isGradient(setting: Setting): setting is readonly Scalar[] {
  return Array.isArray(setting) && setting.every(isScalar)
}

function along(values: readonly Scalar[], t: number): Scalar {
  const place = t * (values.length - 1)
  const before = Math.floor(place)
  const [a, b] = [values[before]!, values[Math.min(before + 1, values.length - 1)]!]
  const share = place - before
  const [x, y] = [numberOf(a), numberOf(b)]
  return x === undefined || y === undefined ? a : share === 0 ? x : (1 - share) * x + share * y
}

/** `1e-4` is a text to some YAML parsers, and what was written for them means a number. */
export function numberOf(value: Scalar): number | undefined {
  if (typeof value === 'number') return value
  return typeof value === 'string' && value.trim() !== '' && Number.isFinite(Number(value))
    ? Number(value)
    : undefined
}
