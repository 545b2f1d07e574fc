import { familyOf, roleOf } from '@polygraft/architectures'
import type { Checkpoint } from '@polygraft/tensor'
import { readTile } from './_tiles.js'
import { type Check, checkOf } from './verify-report.js'

/** No router has a row of zeros; experts have equal rows just where they are the `granularity` parts of one. */
export async function routerCheck(output: Checkpoint, granularity: number): Promise<Check> {
  const family = familyOf(output.config)
  const wrong: string[] = []
  let count = 0
  for (const [name, tensor] of output.tensors) {
    if (roleOf(family, name).group !== 'router') continue
    count++
    const [numExperts, hiddenSize] = tensor.shape as [number, number]
    const bytes = await readTile(tensor, output.sources, { begin: 0, end: numExperts * hiddenSize })
    const width = bytes.length / numExperts
    const rows = Array.from({ length: numExperts }, (_, e) => `${bytes.subarray(e * width, (e + 1) * width)}`)
    const first = rows.filter((_, e) => e % granularity === 0)
    const isTorn = rows.some((row, e) => row !== first[Math.floor(e / granularity)])
    if (rows.some((row) => !/[1-9]/.test(row)) || new Set(first).size < first.length || isTorn)
      wrong.push(name)
  }
  const parts = granularity > 1 ? `, and one row for the ${granularity} parts of each expert` : ''
  return checkOf('routers', wrong, `${count} routers, none with a zero row or two equal rows${parts}`)
}
