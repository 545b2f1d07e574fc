import { resolve } from 'node:path'
import { type Checkpoint, throwIfAny } from '@polygraft/tensor'
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
  throwIfAny(
    [...before].flatMap(([path, expected]) => {
      const received = fileState(path)
      if (received === expected) return []
      const next = 'Let nothing write to the inputs, and start again.'
      return [
        {
          code: 'changed',
          message: 'An input changed while it was read',
          file: path,
          expected,
          received,
          next,
        },
      ]
    }),
  )
}
