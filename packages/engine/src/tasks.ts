import {
  byteSize,
  type Checkpoint,
  type Expr,
  numel,
  operands,
  type StateDict,
  type Tensor,
} from '@polygraft/tensor'
import type { ShardLayout } from '@polygraft/tensor-io'
import { storedDType } from './validate.js'

/** A stretch of work that one thread does alone: elements [begin, begin + count) of every tensor of a group. */
export interface Task {
  /** Index into `TaskList.groups`. */
  readonly group: number
  readonly begin: number
  readonly count: number
}

/** Tensors that are computed together, and the number of elements of each that are in memory at a time. */
interface Group {
  /** The shard that holds them all, by index. */
  readonly shard: number
  readonly names: readonly string[]
  readonly tileElements: number
}

/**
 * All the work of writing a checkpoint, in the order of the bytes in its files as far as groups allow; a group lies in one
 * shard. Plain data.
 */
export interface TaskList {
  readonly groups: readonly Group[]
  readonly tasks: readonly Task[]
}

/** Output bytes of a task: large enough to make taking one cheap, small enough to share work evenly and to report progress. */
const TASK_BYTES = 16 * 2 ** 20
/** Outputs of one kernel; each has a tile of its own in memory. */
const MAX_GROUP = 16
/** All tiles of a group together: what stays in the cache of a core beside the rest. */
export const MAX_TILE_BYTES = 2 * 2 ** 20
/** The least that is worth a read. */
export const MIN_TILE_BYTES = 128 * 2 ** 10
// Tiles begin on whole bytes for every dtype and on whole SIMD steps.
const TILE_STEP = 1024
const MAX_TILE_ELEMENTS = 256 * 1024

/**
 * Parts the work of writing a checkpoint into tasks. Tensors of a shard that share operands (the experts of a layer share the delta, and
 * after upcycling the stored matrix itself) form a group, so that what they share is read and computed once per tile.
 */
export function planTasks(
  { tensors, sources }: Pick<Checkpoint, 'tensors' | 'sources'>,
  shards: readonly ShardLayout[],
  tileBytes: number,
): TaskList {
  const groups = shards.flatMap((layout, shard) =>
    groupTensors(tensors, namesInFileOrder(layout)).map((names): Group => {
      const members = names.map((name) => tensors.get(name)!)
      const fitting = Math.floor(tileBytes / bytesPerElement(members, sources))
      const whole = Math.max(TILE_STEP, fitting - (fitting % TILE_STEP))
      return { shard, names, tileElements: Math.min(MAX_TILE_ELEMENTS, whole) }
    }),
  )
  return { groups, tasks: groups.flatMap((group, i) => splitGroup(group, i, tensors)) }
}

/** The part of a plan's work that writes the shards with these indices. */
export function selectShards<P extends { readonly shards: readonly ShardLayout[]; readonly work: TaskList }>(
  plan: P,
  wanted: ReadonlySet<number>,
): P {
  const { groups, tasks } = plan.work
  const work = { groups, tasks: tasks.filter(({ group }) => wanted.has(groups[group]!.shard)) }
  return { ...plan, shards: plan.shards.filter((_, shard) => wanted.has(shard)), work }
}

/** Bytes of all tiles of a group, for each element: its distinct leaves', its intermediate tiles' and its outputs'. */
function bytesPerElement(group: readonly Tensor[], sources: Checkpoint['sources']): number {
  const seen = new Set<Expr | string>()
  const visit = (expr: Expr, isRoot: boolean): number => {
    const key = expr.op === 'read' ? `${expr.source} ${expr.tensor}` : expr
    if (seen.has(key)) return 0
    seen.add(key)
    const stored = storedDType(expr, sources)
    // Its operands come in blocks of fixed size, and what it fills is made in a buffer of its own.
    if (expr.op === 'lowrank') return 8
    // Ranks take a tile of values beside what they fill.
    if (expr.op === 'ranks') return 16 + visit(expr.arg, false)
    const gathers = GATHERS.has(expr.op)
    const own = isRoot ? 0 : stored ? byteSize(stored, 64) / 64 : gathers || expr.op === 'random' ? 8 : 4
    return own + operands(expr).reduce((sum, operand) => sum + visit(operand, false), 0)
  }
  return group.reduce((sum, { dtype, expr }) => sum + byteSize(dtype, 64) / 64 + visit(expr, true), 0)
}

const GATHERS: ReadonlySet<Expr['op']> = new Set(['rows', 'columns', 'spread', 'concat'])

function namesInFileOrder({ tensors }: ShardLayout): string[] {
  return [...tensors].sort(([, a], [, b]) => a.begin - b.begin).map(([name]) => name)
}

/** Groups in the order of their first members. */
function groupTensors(tensors: StateDict, names: readonly string[]): string[][] {
  const keyOf = sharingKeys()
  const open = new Map<string, string[]>()
  const groups: string[][] = []
  for (const name of names) {
    const tensor = tensors.get(name)!
    const key = `${keyOf(tensor.expr)} ${tensor.dtype} ${numel(tensor.shape)}`
    const group = open.get(key)
    if (group && group.length < MAX_GROUP) group.push(name)
    else {
      const made = [name]
      groups.push(made)
      open.set(key, made)
    }
  }
  return groups
}

/** Names what an expression shares with others: the base and post of a graft, else all of it (experts that start as copies). */
function sharingKeys(): (expr: Expr) => string {
  const ids = new Map<Expr, string>()
  const idOf = (expr: Expr): string => {
    if (expr.op === 'read') return `${expr.source} ${expr.tensor}`
    const id = ids.get(expr) ?? `#${ids.size}`
    ids.set(expr, id)
    return id
  }
  return (expr) => (expr.op === 'graft' ? `graft ${idOf(expr.base)} ${idOf(expr.post)}` : `all ${idOf(expr)}`)
}

function splitGroup({ names, tileElements }: Group, group: number, tensors: StateDict): Task[] {
  const members = names.map((name) => tensors.get(name)!)
  const total = numel(members[0]!.shape)
  const bytes = members.reduce((sum, { dtype }) => sum + byteSize(dtype, 64) / 64, 0)
  const step = tileElements * Math.max(1, Math.floor(TASK_BYTES / (bytes * tileElements)))
  const tasks: Task[] = []
  for (let begin = 0; begin < total; begin += step)
    tasks.push({ group, begin, count: Math.min(step, total - begin) })
  return tasks
}
