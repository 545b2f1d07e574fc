import {
  byteSize,
  type Checkpoint,
  type Expr,
  ModelError,
  numel,
  operands,
  type Problem,
  type Source,
  type SourceId,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { layoutShards, type ShardLayout } from '@polygraft/tensor-io'
import { residentBytes } from './_resident.js'
import { MAX_TILE_BYTES, MIN_TILE_BYTES, planTasks, type TaskList } from './tasks.js'
import { storedDType, tensorProblems } from './validate.js'

/** Default size at which a new shard begins, in bytes; 5 GB as in transformers. */
export const DEFAULT_MAX_SHARD_BYTES = 5e9
/** Default bound on memory, in bytes. */
export const DEFAULT_MEMORY_BYTES = 512 * 2 ** 20

// Measured as peak RSS of grafts with 0, 1, 2 and 4 threads, of 400 MB and 2.4 GB, of 100 and 25,000 tensors, and rounded
// up by a sixth to a third: the process with the thread that digests, a thread that computes, and what awaited reads
// leave to the garbage collector where no thread computes.
const RUNTIME_BYTES = 96 * 2 ** 20
const THREAD_BYTES = 32 * 2 ** 20
const AWAITED_BYTES = 48 * 2 ** 20
// A tensor's metadata, of inputs and outputs, in the process and in each thread.
const TENSOR_BYTES = 3 * 2 ** 10
const TENSOR_THREAD_BYTES = 1.5 * 2 ** 10

export interface PlanOptions {
  /** A shard is closed before a tensor that would take it past this size. Unit: bytes. */
  readonly maxShardBytes?: number
  /** Unit: bytes, of the whole process. */
  readonly memoryBytes?: number
  /** Threads that will compute, 0 for none beside the caller's. Default 0. */
  readonly threads?: number
}

/** What evaluating a checkpoint will take, known before a byte moves. Plain data. */
export interface Plan {
  readonly shards: readonly ShardLayout[]
  /** Elements of all tensors together. */
  readonly parameters: number
  /** Bytes that will be asked of the inputs' weights. */
  readonly bytesRead: number
  /** Size of the output's safetensors files. */
  readonly bytesWritten: number
  /** Upper estimate of the process's memory, in bytes. */
  readonly peakBytes: number
  readonly threads: number
  readonly work: TaskList
}

/**
 * Lays out the shards of `checkpoint` and sums up what writing it costs. Reads nothing.
 * @throws ModelError listing every tensor that cannot be evaluated; `memory-budget` when the budget holds no tile;
 *   `bad-shard-size` for weights with a name of their own that one shard does not hold.
 */
export function planCheckpoint(checkpoint: Checkpoint, options: PlanOptions = {}): Plan {
  throwIfAny(checkpointProblems(checkpoint))
  const { tensors, sources, weightsName } = checkpoint
  const shards = layoutShards(
    tensors,
    options.maxShardBytes ?? DEFAULT_MAX_SHARD_BYTES,
    undefined,
    weightsName,
  )
  if (weightsName !== undefined && shards.length > 1) throw notOneFile(weightsName, shards)
  const threads = options.threads ?? 0
  const budget = tileBudget(checkpoint, threads, options.memoryBytes ?? DEFAULT_MEMORY_BYTES)
  const work = planTasks(checkpoint, shards, budget.tileBytes)
  let parameters = 0
  let bytesRead = 0
  for (const { shape } of tensors.values()) parameters += numel(shape)
  for (const { names } of work.groups)
    bytesRead += bytesReadBy(
      names.map((name) => tensors.get(name)!),
      sources,
    )
  const bytesWritten = shards.reduce((sum, shard) => sum + shard.size, 0)
  return { shards, parameters, bytesRead, bytesWritten, peakBytes: budget.peakBytes, threads, work }
}

function notOneFile(name: string, shards: readonly ShardLayout[]): ModelError {
  const bytes = shards.reduce((sum, { size }) => sum + size, 0)
  return new ModelError({
    code: 'bad-shard-size',
    message: 'These weights must be one file, and are larger than a shard',
    file: `${name}.safetensors`,
    expected: `a shard size of at least ${bytes} bytes`,
    received: `${shards.length} shards`,
    next: 'Raise the shard size, or lower the rank.',
  })
}

/** Everything that keeps `checkpoint` from being evaluated, for all tensors. */
export function checkpointProblems(checkpoint: Checkpoint): Problem[] {
  return [...checkpoint.tensors].flatMap(([name, tensor]) => tensorProblems(name, tensor, checkpoint.sources))
}

/**
 * The most threads, up to `wanted`, whose memory and tiles a budget holds; 0 when it holds none.
 * @param memoryBytes As in `PlanOptions`.
 */
export function fittingThreads(
  checkpoint: Pick<Checkpoint, 'tensors' | 'sources'>,
  wanted: number,
  memoryBytes: number = DEFAULT_MEMORY_BYTES,
): number {
  const fits = (threads: number) => fixedBytes(checkpoint, threads) + threads * MAX_TILE_BYTES <= memoryBytes
  let threads = wanted
  while (threads > 0 && !fits(threads)) threads--
  return threads
}

/** Bytes that the tiles of one thread may take, and the process's peak with that. */
function tileBudget(
  checkpoint: Checkpoint,
  threads: number,
  memoryBytes: number,
): { tileBytes: number; peakBytes: number } {
  const fixed = fixedBytes(checkpoint, threads)
  const users = Math.max(1, threads)
  const tileBytes = Math.min(MAX_TILE_BYTES, Math.floor((memoryBytes - fixed) / users))
  if (tileBytes < MIN_TILE_BYTES)
    throw new ModelError({
      code: 'memory-budget',
      message: 'The memory budget does not hold one tile',
      expected: `at least ${Math.ceil((fixed + users * MIN_TILE_BYTES) / 2 ** 20)} MiB for ${threads} threads`,
      received: `${Math.floor(memoryBytes / 2 ** 20)} MiB`,
      next: 'Raise the memory budget, or take fewer threads.',
    })
  return { tileBytes, peakBytes: fixed + users * tileBytes }
}

/** What the process takes beside its tiles. */
function fixedBytes({ sources, tensors }: Pick<Checkpoint, 'tensors' | 'sources'>, threads: number): number {
  const stored = [...sources.values()].reduce((sum, source) => sum + source.tensors.size, 0)
  const described = stored + tensors.size
  const resident = residentBytes(tensors)
  const here = RUNTIME_BYTES + TENSOR_BYTES * described + resident.once
  const thread = THREAD_BYTES + TENSOR_THREAD_BYTES * described + resident.eachThread
  return here + (threads > 0 ? threads * thread : AWAITED_BYTES + resident.eachThread)
}

/** Bytes that a group of tensors reads; a tensor that occurs twice in elementwise arithmetic is read once, and so are the factors of products: tiles of one tensor share them. */
function bytesReadBy(group: readonly Tensor[], sources: ReadonlyMap<SourceId, Source>): number {
  const seen = new Set<string>()
  const visit = (e: Expr, n: number): number => {
    if (e.op === 'read') {
      const key = `${e.source} ${e.tensor}`
      if (seen.has(key)) return 0
      seen.add(key)
      return byteSize(storedDType(e, sources)!, n)
    }
    if (e.op === 'concat') return e.args.reduce((sum, arg, i) => sum + alone(arg, e.sizes[i]!), 0)
    if (e.op === 'rows' || e.op === 'columns' || e.op === 'ranks') return alone(e.arg, n)
    if (e.op === 'spread') return alone(e.arg, e.count)
    if (e.op === 'lowrank') return alone(e.up, e.rows * e.rank) + alone(e.down, e.rank * e.width)
    return operands(e).reduce((sum, operand) => sum + visit(operand, n), 0)
  }
  const alone = (expr: Expr, elements: number) =>
    bytesReadBy([{ dtype: 'F32', shape: [elements], expr }], sources)
  return group.reduce((sum, { expr, shape }) => sum + visit(expr, numel(shape)), 0)
}
