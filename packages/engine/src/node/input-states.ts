import { statSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Checkpoint, throwIfAny } from '@polygraft/tensor'

/** Size and time of change of every local input file, by absolute path. */
export type InputStates = ReadonlyMap<string, string>

/** The states of the local files that `checkpoint` reads: weights and carried files. */
export function inputStates({ sources, files }: Pick<Checkpoint, 'sources' | 'files'>): InputStates {
  const inputs = [...[...sources.values()].flatMap(({ shards }) => [...shards.values()]), ...files.values()]
  const paths = new Set(
    inputs
      .map(({ path }) => path)
      .filter((path) => path !== undefined)
      .map((path) => resolve(path)),
  )
  return new Map([...paths].map((path) => [path, stateOf(path)]))
}

function stateOf(path: string): string {
  const { size, mtimeMs } = statSync(path, { throwIfNoEntry: false }) ?? { size: -1, mtimeMs: 0 }
  return size < 0 ? 'gone' : `${size} bytes of ${new Date(mtimeMs).toISOString()}`
}

/**
 * Refuses a result whose inputs are no longer what they were at `before`.
 * @throws ModelError 'changed' with every such file.
 */
export function checkInputStates(before: InputStates): void {
  throwIfAny(
    [...before].flatMap(([path, expected]) => {
      const received = stateOf(path)
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
