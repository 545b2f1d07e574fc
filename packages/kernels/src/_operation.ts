import type { Machine } from './_machine.js'

/** One kind of instruction: its operands' names, in order, and what part `part` of `parts` of it does. */
export interface Operation<Field extends string = string> {
  readonly fields: readonly Field[]
  run(machine: Machine, operands: Readonly<Record<Field, number>>, part: number, parts: number): void
}

export function operation<const Field extends string>(
  fields: readonly Field[],
  run: Operation<Field>['run'],
): Operation<Field> {
  return { fields, run }
}

/** Part `part` of [0, count): [begin, end). */
export function shareOf(count: number, part: number, parts: number): readonly [number, number] {
  return [Math.floor((count * part) / parts), Math.floor((count * (part + 1)) / parts)]
}
