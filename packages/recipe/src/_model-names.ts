import type { MergePlan } from './merge-plan.js'

/** All models of a plan; the first is the one that gives config, names and files. */
export function modelNames(plan: MergePlan): string[] {
  const inputs = plan.slices.flatMap(({ base, inputs }) => [
    ...(base ? [base] : []),
    ...inputs.map(({ model }) => model),
  ])
  return [...new Set([targetName(plan), ...inputs])]
}

export function targetName({ base, slices }: MergePlan): string {
  return base ?? slices[0]!.inputs[0]!.model
}

/** The base whose rows stand in for missing tokens, where there is one. */
export function baseIndex({ base }: MergePlan, names: readonly string[]): number | undefined {
  return base === undefined ? undefined : names.indexOf(base)
}
