import { resolve } from 'node:path'
import { type Checkpoint, type Problem, throwIfAny } from '@polygraft/tensor'
import { fileState } from '@polygraft/tensor-io/node'

/** Size and time of change of every local input file when it was opened, by absolute path. */
export type InputStates = ReadonlyMap<string, string>

/** The states of the local files that `checkpoint` reads: weights and carried files. */
export function inputStates({ sources, files }: Pick<Checkpoint, 'sources' | 'files'>): InputStates {
  const inputs = [...[...sources.values()].flatMap(({ shards }) => [...shards.values()]), ...files.values()]
  const states = new Map<string, string>()
  for (const { path, state } of inputs) {
    if (path === undefined) continue
    const known = resolve(path)
    // Of a file that is opened twice, what was opened first.
    if (!states.has(known)) states.set(known, state ?? fileState(path))
  }
  return states
}

/**
 * Refuses a result whose inputs are no longer what they were at `before`.
 * @throws ModelError 'changed' with every such file.
 */
export function checkInputStates(before: InputStates): void {
  const next = 'Let nothing write to the inputs, and start again.'
  throwIfAny(changedInputs(before, 'An input changed while it was read', next))
}

/** The inputs that are no longer what they were at `before`, as problems of code 'changed'. */
export function changedInputs(before: InputStates, message: string, next: string): Problem[] {
  return [...before]
    .map(([path, expected]) => ({
      code: 'changed',
      message,
      file: path,
      expected,
      received: fileState(path),
      next,
    }))
    .filter(({ expected, received }) => received !== expected)
}
