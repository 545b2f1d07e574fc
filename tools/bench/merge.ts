import { dareTies, linear, measureMerge, taskArithmetic, ties, tiesTargets } from '@polygraft/delta'
import { measureTargets, writeCheckpoint } from '@polygraft/engine'
import { type Checkpoint, mergeSources, type Op, pipe } from '@polygraft/tensor'
import { createFolder, openPath } from '@polygraft/tensor-io/node'

/*
 * Merges of a base and two fine-tuned models of it, through the packages' own interface: for measuring methods that have
 * no command. Bundled by group.ts. Run: node merge.js <method> <base> <a> <b> <out> <threads>
 * Weights and densities are those of mergekit's configurations in cases.ts.
 */

type Merge = (base: Checkpoint, a: Checkpoint, b: Checkpoint, threads: number) => Op | Promise<Op>

const METHODS: Readonly<Record<string, Merge>> = {
  linear: (base, a, b) =>
    linear({
      models: [
        { model: base, weight: 0.5 },
        { model: a, weight: 0.3 },
        { model: b, weight: 0.2 },
      ],
    }),
  task_arithmetic: (_base, a, b) => taskArithmetic({ models: [{ model: a }, { model: b, weight: 0.5 }] }),
  ties: async (base, a, b, threads) => {
    const options = { models: [a, b].map((model) => ({ model, density: 0.2 })) }
    const sources = mergeSources(base, a, b)
    const measured = await measureMerge(
      (measured) => tiesTargets(base, { ...options, measured }),
      (targets) => measureTargets(targets, sources, { threads }),
    )
    return ties({ ...options, measured })
  },
  dare_ties: (_base, a, b) => dareTies({ models: [a, b].map((model) => ({ model, density: 0.5 })), seed: 0 }),
}

const [method, basePath, aPath, bPath, out, threadsText] = process.argv.slice(2)
const merge = METHODS[method!]
if (!merge || !basePath || !aPath || !bPath || !out || !threadsText)
  throw new Error('See the usage in merge.ts.')
const paths = [basePath, aPath, bPath]
const threads = Number(threadsText)
const [base, a, b] = (await Promise.all(paths.map((path) => openPath(path)))) as [
  Checkpoint,
  Checkpoint,
  Checkpoint,
]
const folder = await createFolder(out, { inputs: paths })
try {
  const merged = pipe(base, await merge(base, a, b, threads))
  await writeCheckpoint(merged, folder, { version: '0.0.0', threads })
  await folder.publish()
} finally {
  await folder.discard()
}
