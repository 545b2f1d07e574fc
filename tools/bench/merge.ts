import { writeCheckpoint } from '@polygraft/engine'
import { type Checkpoint, type Expr, mergeSources, type Tensor } from '@polygraft/tensor'
import { createFolder, openPath } from '@polygraft/tensor-io/node'

/*
 * Merges of a base and two fine-tuned models of it, through the packages' own interface: for measuring the engine on
 * methods that have no command. Bundled by main.ts. Run: node merge.js <method> <base> <a> <b> <out> <threads>
 */

/** Weights of both in a task arithmetic; mergekit's are the same. */
const TASK_WEIGHTS = [1, 0.5] as const
/** Weights of base, a and b in a linear merge. */
const LINEAR_WEIGHTS = [0.5, 0.3, 0.2] as const

type Merge = (base: Expr, a: Expr, b: Expr) => Expr

const scaled = (by: number, arg: Expr): Expr => ({ op: 'scale', by, arg })
const METHODS: Readonly<Record<string, Merge>> = {
  linear: (base, ...others) => ({
    op: 'add',
    args: [base, ...others].map((expr, i) => scaled(LINEAR_WEIGHTS[i]!, expr)),
  }),
  task_arithmetic: (base, ...others) => {
    const deltas = others.map((expr, i) => scaled(TASK_WEIGHTS[i]!, { op: 'sub', args: [expr, base] }))
    return { op: 'add', args: [base, { op: 'add', args: deltas }] }
  },
}

const [method, basePath, aPath, bPath, out, threads] = process.argv.slice(2)
const merge = METHODS[method!]
if (!merge || !basePath || !aPath || !bPath || !out || !threads) throw new Error('See the usage in merge.ts.')
const [base, a, b] = await Promise.all([basePath, aPath, bPath].map((path) => openPath(path)))
const folder = await createFolder(out, { inputs: [basePath, aPath, bPath] })
try {
  await writeCheckpoint(merged(merge, base!, a!, b!), folder, {
    version: '0.0.0',
    threads: Number(threads),
  })
  await folder.publish()
} finally {
  await folder.discard()
}

function merged(method: Merge, base: Checkpoint, a: Checkpoint, b: Checkpoint): Checkpoint {
  const tensors = [...base.tensors].map(([name, { dtype, shape, expr }]): [string, Tensor] => {
    const others = [a, b].map((checkpoint) => checkpoint.tensors.get(name)!.expr)
    return [name, { dtype, shape, expr: method(expr, others[0]!, others[1]!) }]
  })
  return { ...base, tensors: new Map(tensors), sources: mergeSources(base, a, b) }
}
