import type { TargetName } from '@polygraft/architectures'
import type { DiffReport, Pairs } from '@polygraft/delta'
import type { Manifest } from '@polygraft/engine'
import type { DType, Problem } from '@polygraft/tensor'

/** Where a checkpoint comes from. */
export type Opening =
  | { readonly kind: 'files'; readonly name: string; readonly files: ReadonlyMap<string, Blob> }
  | { readonly kind: 'url'; readonly location: string }
  | { readonly kind: 'trio'; readonly name: string }
  | { readonly kind: 'output'; readonly name: string }

/** A tensor as the table shows it. */
export interface TensorRow {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  /** Unit: bytes. */
  readonly bytes: number
  readonly group: string
  readonly layer?: number
  readonly expert?: number
}

/** What headers and config say of a checkpoint. Plain data. */
export interface Model {
  readonly key: string
  readonly name: string
  readonly location: string
  readonly architecture: string
  /** Why it is of no family of ours, where it is not. */
  readonly familyProblem?: string
  readonly parameters: number
  /** Parameters that a token meets, of a mixture. */
  readonly active?: number
  readonly numExperts?: number
  readonly topK?: number
  readonly bytes: number
  readonly fileCount: number
  /** Whether its server could send no parts, so that all of it was fetched. */
  readonly isFetchedWhole: boolean
  readonly dtypes: readonly string[]
  readonly experts?: readonly string[]
  readonly madeBy: readonly string[]
  readonly tensors: readonly TensorRow[]
}

/** A tensor's values, as far as they were read. */
export interface TensorView {
  readonly count: number
  /** Rows that were read, of all; fewer than all of a large tensor. */
  readonly rowsRead: number
  readonly rows: number
  readonly min: number
  readonly max: number
  readonly mean: number
  readonly std: number
  readonly nonFinite: number
  /** Counts of equally wide bins over [min, max]. */
  readonly histogram: readonly number[]
  /** Root mean square of each cell, row by row. */
  readonly heat: { readonly rows: number; readonly columns: number; readonly values: Float32Array }
}

/** As `polygraft diff --json` prints it. */
export type Comparison = { readonly base: string; readonly post: string } & DiffReport & Omit<Pairs, 'pairs'>

/** What to build: an upcycled base, a graft onto a checkpoint that was trained on, or both steps at once. */
export interface Recipe {
  readonly base: string
  readonly post?: string
  readonly cpt?: string
  readonly languages: readonly string[]
  readonly lambda: number
  /** By expert, where not 1. */
  readonly expertLambda: Readonly<Record<number, number>>
  /** By layer, where not 1. */
  readonly layerLambda: Readonly<Record<number, number>>
  /** The family of an upcycled base. */
  readonly target: TargetName
  readonly seed: number
}

/** What building would take. `figures` is there when nothing speaks against it. */
export interface Outlook {
  readonly figures?: {
    readonly parameters: number
    readonly active?: number
    /** Of one token through the model, forward: two for each parameter that it meets. */
    readonly flopPerToken: number
    readonly bytesRead: number
    readonly bytesWritten: number
    readonly peakBytes: number
    readonly shardCount: number
    readonly experts: readonly string[]
  }
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
  /** The same on the command line, a command for each step. */
  readonly commands: readonly string[]
  /** The same as a recipe for `polygraft merge`. */
  readonly yaml: string
}

/** Where to write: a folder that the user picked, or the page's own storage. */
export type Target =
  | { readonly kind: 'folder'; readonly folder: FileSystemDirectoryHandle; readonly name: string }
  | { readonly kind: 'storage'; readonly name: string }

/** Bytes done of all. */
export type OnProgress = (done: number, total: number) => void

/** What the worker throws in place of an error: classes do not cross threads. */
export interface Failure {
  readonly problems: readonly Problem[]
}

/** What runs beside the page. Every method throws a `Failure`. */
export interface Api {
  open(key: string, opening: Opening): Promise<Model>
  close(key: string): Promise<void>
  view(key: string, tensor: string): Promise<TensorView>
  compare(base: string, post: string, onProgress: OnProgress): Promise<Comparison>
  plan(recipe: Recipe): Promise<Outlook>
  run(recipe: Recipe, target: Target, onProgress: OnProgress): Promise<Manifest>
  /** Ends what is running; it throws a problem of code 'cancelled'. */
  cancel(): Promise<void>
  /** Files of an output in the page's own storage. */
  outputFiles(name: string): Promise<ReadonlyMap<string, File>>
}
