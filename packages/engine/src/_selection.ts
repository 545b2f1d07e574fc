import {
  BLOCK_ELEMENTS,
  type Digits,
  digitCount,
  finiteBins,
  magnitudeOf,
  type RankWindow,
} from '@polygraft/kernels'
import { type FloatDType, numel, type Tensor } from '@polygraft/tensor'
import { split } from './measure-run.js'
import type { MeasureTask } from './measure-tasks.js'

/** The largest elements of a tensor that are wanted. */
export interface TopK {
  /** Declare it with the dtype in which the threshold is compared: F32 for a delta that is kept in F32 arithmetic. */
  readonly tensor: Tensor
  /** How many elements. */
  readonly keep: number
}

/**
 * Which elements those are, as `keep` (`@polygraft/tensor`) takes it: |x| > threshold, and |x| == threshold at an index
 * below `tieEnd`.
 */
export interface Threshold {
  /** The smallest magnitude that is kept; the dtype's largest finite one where none is. */
  readonly threshold: number
  /** One past the index of the last element that is kept at the threshold; 0 where none is. */
  readonly tieEnd: number
  /** Finite elements that are kept: as many as wanted, or all. */
  readonly kept: number
  /** Of those, the ones equal to the threshold. */
  readonly keptAtThreshold: number
  /** NaN and infinities. They have no rank and are not counted as kept; `keep` passes them on, so that they are seen. */
  readonly nonFinite: number
}

/** The search for one tensor's threshold. */
export interface Selection {
  readonly tensor: Tensor
  readonly dtype: FloatDType
  readonly elements: number
  readonly wanted: number
  /** Digits of a magnitude of this dtype. */
  readonly digits: number
  /** The threshold's digits that are known. */
  prefix: Digits
  /** Elements that are surely kept: those whose digits are above `prefix`. */
  above: number
  nonFinite: number
  /** False once it is known that none or all are kept. */
  open: boolean
  /** Of the elements that begin with `prefix`: how many each segment has. */
  ties: number[]
  /** Magnitudes between which the threshold is expected, by a sample. */
  window: RankWindow | undefined
  tieEnd: number
}

/** Whether digit `digit` of the threshold is still to be found. */
export function isOpen({ open, digits, prefix }: Selection, digit: number): boolean {
  return open && digit < digits && prefix.length === digit
}

export function createSelection({ tensor, keep }: TopK): Selection {
  const dtype = tensor.dtype as FloatDType
  const elements = numel(tensor.shape)
  return {
    tensor,
    dtype,
    elements,
    wanted: Math.min(keep, elements),
    digits: digitCount(dtype),
    prefix: [],
    above: 0,
    nonFinite: 0,
    open: elements > 0,
    ties: [],
    window: undefined,
    tieEnd: 0,
  }
}

/** Histograms of a tensor at a time in memory: 128 or 256 KiB each. */
const MAX_SEGMENTS = 32
const MIN_SEGMENT_BLOCKS = 16

/** Blocks of a segment: the part of a tensor that is counted apart, so that the last tie is looked for in only one. */
function segmentBlocks({ elements }: Selection): number {
  return Math.max(MIN_SEGMENT_BLOCKS, Math.ceil(elements / BLOCK_ELEMENTS / MAX_SEGMENTS))
}

/** A selection's tensor, segment by segment. */
export function segments(
  selection: Selection,
  task: Omit<MeasureTask<'digits' | 'window' | 'nth'>, 'begin' | 'count'>,
): MeasureTask[] {
  return split(selection.tensor, segmentBlocks(selection), task)
}

export function thresholdOf(selection: Selection): Threshold {
  const { dtype, wanted, elements, nonFinite, open, prefix, above } = selection
  if (open) {
    const threshold = magnitudeOf(dtype, prefix)
    return {
      threshold,
      tieEnd: selection.tieEnd,
      kept: wanted,
      keptAtThreshold: wanted - above,
      nonFinite,
    }
  }
  if (wanted === 0 && elements > 0)
    return { threshold: largest(dtype), tieEnd: 0, kept: 0, keptAtThreshold: 0, nonFinite }
  return { threshold: 0, tieEnd: elements, kept: elements - nonFinite, keptAtThreshold: 0, nonFinite }
}

/** The largest finite magnitude: nothing finite is above it, and infinities are. */
function largest(dtype: FloatDType): number {
  const rest = Array<number>(digitCount(dtype) - 1).fill(0xffff)
  return magnitudeOf(dtype, [finiteBins(dtype) - 1, ...rest])
}

/** Takes down how many elements have no rank; where none or all of the others are wanted, nothing more is to be found. */
export function noteNonFinite(selection: Selection, nonFinite: number): void {
  selection.nonFinite = nonFinite
  if (selection.wanted === 0 || selection.wanted >= selection.elements - nonFinite) selection.open = false
}

/** Calls `use` with the results of all segments of an operand, in order, once they are there. @param tasks those of an operand lie together. */
export function collectParts<Result>(
  tasks: readonly MeasureTask[],
  use: (operand: number, parts: readonly Result[]) => void,
): (task: MeasureTask, index: number, result: Result) => void {
  const first = new Map<number, number>()
  const left = new Map<number, number>()
  const parts = new Map<number, Result[]>()
  for (const [i, { operand }] of tasks.entries()) {
    if (!first.has(operand)) first.set(operand, i)
    left.set(operand, (left.get(operand) ?? 0) + 1)
  }
  return ({ operand }, index, result) => {
    const some = parts.get(operand) ?? []
    parts.set(operand, some)
    some[index - first.get(operand)!] = result
    left.set(operand, left.get(operand)! - 1)
    if (left.get(operand)! > 0) return
    parts.delete(operand)
    use(operand, some)
  }
}
