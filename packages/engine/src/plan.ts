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
  throwIfAny,
} from '@polygraft/tensor'
import { layoutShards, type ShardLayout } from '@polygraft/tensor-io'
import { storedDType, tensorProblems } from './validate.js'

/** Default size at which a new shard begins, in bytes; 5 GB as in transformers. */
export const DEFAULT_MAX_SHARD_BYTES = 5e9
/** Default bound on memory, in bytes. */
export const DEFAULT_MEMORY_BYTES = 512 * 2 ** 20

// What a Node process takes before the first tile, measured with an empty checkpoint and rounded up.
const RUNTIME_BYTES = 96 * 2 ** 20
const MAX_TILE_ELEMENTS = 256 * 1024
// Tiles begin on whole bytes for every dtype, on whole SIMD steps, and are worth a read.
const MIN_TILE_ELEMENTS = 1024

export interface PlanOptions {
  /** A shard is closed before a tensor that would take it past this size. Unit: bytes. */
  readonly maxShardBytes?: number
  /** Unit: bytes, of the whole process. */
  readonly memoryBytes?: number
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
  readonly tileElements: number
}

/**
 * Lays out the shards of `checkpoint` and sums up what writing it costs. Reads nothing.
 * @throws ModelError listing every tensor that cannot be evaluated; `memory-budget` when the budget holds no tile.
 */
export function planCheckpoint(checkpoint: Checkpoint, options: PlanOptions = {}): Plan {
  throwIfAny(checkpointProblems(checkpoint))
  const { tensors, sources } = checkpoint
  const shards = layoutShards(tensors, options.maxShardBytes ?? DEFAULT_MAX_SHARD_BYTES)
  const { tileElements, peakBytes } = chooseTile(checkpoint, options.memoryBytes ?? DEFAULT_MEMORY_BYTES)
  let parameters = 0
  let bytesRead = 0
  for (const { shape, expr } of tensors.values()) {
    parameters += numel(shape)
    bytesRead += bytesReadBy(expr, numel(shape), sources)
  }
  const bytesWritten = shards.reduce((sum, shard) => sum + shard.size, 0)
  return { shards, parameters, bytesRead, bytesWritten, peakBytes, tileElements }
}

/** Everything that keeps `checkpoint` from being evaluated, for all tensors. */
export function checkpointProblems(checkpoint: Checkpoint): Problem[] {
  return [...checkpoint.tensors].flatMap(([name, tensor]) => tensorProblems(name, tensor, checkpoint.sources))
}

function chooseTile(
  checkpoint: Checkpoint,
  memoryBytes: number,
): { tileElements: number; peakBytes: number } {
  // Metadata of inputs and output lives in maps and header strings: about 1 kB a tensor each.
  const stored = [...checkpoint.sources.values()].reduce((sum, source) => sum + source.tensors.size, 0)
  const fixed = RUNTIME_BYTES + 1024 * (stored + checkpoint.tensors.size)
  let perElement = 16
  for (const { expr } of checkpoint.tensors.values()) perElement = Math.max(perElement, bufferBytes(expr) + 8)
  const room = Math.floor((memoryBytes - fixed) / perElement)
  const tileElements = Math.min(MAX_TILE_ELEMENTS, room - (room % MIN_TILE_ELEMENTS))
  if (tileElements < MIN_TILE_ELEMENTS)
    throw new ModelError({
      code: 'memory-budget',
      message: 'The memory budget does not hold one tile',
      expected: `at least ${Math.ceil((fixed + perElement * MIN_TILE_ELEMENTS) / 2 ** 20)} MiB`,
      received: `${Math.floor(memoryBytes / 2 ** 20)} MiB`,
      next: 'Raise the memory budget.',
    })
  return { tileElements, peakBytes: fixed + perElement * tileElements }
}

/** Upper bound on the buffers that one element of `expr` holds while it is computed, 8 bytes each. */
function bufferBytes(expr: Expr): number {
  return operands(expr).reduce((sum, operand) => sum + bufferBytes(operand), 8)
}

/** Bytes of `count` elements of `expr`; a tensor that occurs twice in elementwise arithmetic is read once. */
function bytesReadBy(expr: Expr, count: number, sources: ReadonlyMap<SourceId, Source>): number {
  const seen = new Set<string>()
  const visit = (e: Expr, n: number): number => {
    if (e.op === 'read') {
      const key = `${e.source} ${e.tensor}`
      if (seen.has(key)) return 0
      seen.add(key)
      return byteSize(storedDType(e, sources)!, n)
    }
    if (e.op === 'concat')
      return e.args.reduce((sum, arg, i) => sum + bytesReadBy(arg, e.sizes[i]!, sources), 0)
    if (e.op === 'rows') return bytesReadBy(e.arg, n, sources)
    return operands(e).reduce((sum, operand) => sum + visit(operand, n), 0)
  }
  return visit(expr, count)
}
