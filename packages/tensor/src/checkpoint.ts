import type { DType } from './dtype.js'
import type { Expr, SourceId } from './expr.js'
import { read } from './expr.js'

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject
export interface JsonObject {
  readonly [key: string]: JsonValue
}

/** Random access to immutable bytes. The web's `Blob` is one; files and URLs are made into one by `tensor-io`. */
export interface ByteSource {
  /** Unit: bytes. */
  readonly size: number
  slice(begin: number, end: number): ByteSource
  arrayBuffer(): Promise<ArrayBuffer>
  /** Set when this is the whole of a local file, so that a thread can open it for itself. */
  readonly path?: string
  /** Where known, what tells a whole file from what it was or will be at another time: size and time of change, ETag. */
  readonly state?: string
}

/** Where a stored tensor lies: bytes [begin, end) of `file`, counted from the file's first byte. */
export interface StoredTensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly file: string
  readonly begin: number
  readonly end: number
}

/** An opened checkpoint's weights: what `read` expressions refer to. */
export interface Source {
  readonly id: SourceId
  /** Folder, file or URL, as the user would write it. For messages and provenance only. */
  readonly location: string
  readonly tensors: ReadonlyMap<string, StoredTensor>
  /** The safetensors files by name. */
  readonly shards: ReadonlyMap<string, ByteSource>
}

/** A symbolic tensor: a dtype and a shape, and how its elements come about. */
export interface Tensor {
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly expr: Expr
}

/** Tensors by name, in the order in which they are to be written. */
export type StateDict = ReadonlyMap<string, Tensor>

/** A tensor of an input that is not part of the output, and why. */
export interface Skipped {
  readonly tensor: string
  readonly reason: string
}

/** How a checkpoint came to be. Written to `polygraft.json` beside the weights, and read back from there. */
export interface Provenance {
  /** Each operation with its options as plain data, in order: `{ op: 'upcycle', experts: 4, ... }`. */
  readonly recipe: readonly JsonObject[]
  /** Label of expert e, one for each expert; the first is the original language's. */
  readonly experts?: readonly string[]
  readonly skipped: readonly Skipped[]
}

/** A model: its configuration, its symbolic tensors, and every other file it came with. */
export interface Checkpoint {
  /** The parsed `config.json`, unknown keys kept. */
  readonly config: JsonObject
  /**
   * Names of fields, at any depth of `config`, whose numbers were written as floats (`0.0`, `1e-5`). JavaScript does not
   * tell 0.0 from 0; Python does, and strict configs refuse the wrong one.
   */
  readonly floatFields?: readonly string[]
  readonly tensors: StateDict
  /** Tokenizer, generation config, licence, ... by path relative to the checkpoint; neither weights nor config. */
  readonly files: ReadonlyMap<string, ByteSource>
  /** Stem of the weights' file, where it is not `model`: such weights are one file, and no sharded set. */
  readonly weightsName?: string
  /** What the `read` expressions of `tensors` refer to. */
  readonly sources: ReadonlyMap<SourceId, Source>
  readonly provenance: Provenance
}

/** A pure, synchronous function between checkpoints: it builds expressions and reads nothing. */
export type Op = (checkpoint: Checkpoint) => Checkpoint

/** `ops` applied to `checkpoint` from left to right. */
export function pipe(checkpoint: Checkpoint, ...ops: readonly Op[]): Checkpoint {
  return ops.reduce((result, op) => op(result), checkpoint)
}

/** The state dict that reads every tensor of `source` as it is stored. */
export function stateDictOf(source: Source): StateDict {
  const entries = [...source.tensors].map(
    ([name, { dtype, shape }]) => [name, { dtype, shape, expr: read(source.id, name) }] as const,
  )
  return new Map(entries)
}

/** The sources of several checkpoints together. Ids name content, so equal ids are one source. */
export function mergeSources(...checkpoints: readonly Checkpoint[]): ReadonlyMap<SourceId, Source> {
  return new Map(checkpoints.flatMap((checkpoint) => [...checkpoint.sources]))
}

/** Ids of what a checkpoint is made of, for the `inputs` of a recipe step: one, or a sorted list. */
export function sourceIds(checkpoint: Checkpoint): JsonValue {
  const ids = [...checkpoint.sources.keys()].sort()
  return ids.length === 1 ? ids[0]! : ids
}
