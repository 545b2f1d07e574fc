import { BLOCK_ELEMENTS, type Digits, digitCount, finiteBins, magnitudeOf } from '@polygraft/kernels'
import {
  type FloatDType,
  numel,
  type Problem,
  type Source,
  type SourceId,
  type Tensor,
  throwIfAny,
} from '@polygraft/tensor'
import { operandProblems } from './measure.js'
import { bytesOf, type MeasureOptions, type Measuring, measuring, split } from './measure-run.js'
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

/**
 * The exact threshold of the `keep` largest magnitudes of each tensor; of equal ones, those of lowest index.
 * Radix selection over the bits of |x|: F16 and BF16 are passed over once, F32 twice, F64 four times, and up to a sixteenth
 * of a tensor once more to find the last of equal magnitudes. +0 and -0 are equal.
 * @throws ModelError 'not-a-float', 'bad-count' with every such tensor; what reading throws.
 */
export async function measureThresholds(
  wanted: ReadonlyMap<string, TopK>,
  sources: ReadonlyMap<SourceId, Source>,
  options: MeasureOptions = {},
): Promise<Map<string, Threshold>> {
  const operands = new Map([...wanted].map(([name, { tensor }]) => [name, [tensor]] as const))
  throwIfAny([...operandProblems(operands, sources), ...[...wanted].flatMap(countProblems)])
  const selections = [...wanted.values()].map(createSelection)
  const bytesTotal = selections.reduce((sum, { tensor, digits }) => sum + digits * bytesOf([tensor]), 0)
  await measuring(operands, sources, bytesTotal, options, async (measures) => {
    for (let digit = 0; selections.some((s) => s.open && digit < s.digits); digit++)
      await countDigits(selections, digit, measures)
    await findLastTies(selections, measures)
  })
  return new Map([...wanted.keys()].map((name, i) => [name, thresholdOf(selections[i]!)]))
}

/** The search for one tensor's threshold. */
interface Selection {
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
  /** A histogram for each segment, until they are all there. */
  bins: Uint32Array[]
  tieEnd: number
}

function createSelection({ tensor, keep }: TopK): Selection {
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
    bins: [],
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

/** One pass over every tensor that is still open: fixes the next digit of its threshold. */
async function countDigits(
  selections: readonly Selection[],
  digit: number,
  { run }: Measuring,
): Promise<void> {
  const tasks = selections.flatMap((selection, operand) =>
    selection.open && digit < selection.digits ? segments(selection, operand) : [],
  )
  const first = new Map<number, number>()
  for (const [i, { operand }] of tasks.entries()) if (!first.has(operand)) first.set(operand, i)
  const left = new Map<number, number>()
  for (const { operand } of tasks) left.set(operand, (left.get(operand) ?? 0) + 1)
  await run(tasks, ({ operand }, index, bins) => {
    const selection = selections[operand]!
    selection.bins[index - first.get(operand)!] = bins
    left.set(operand, left.get(operand)! - 1)
    if (left.get(operand) === 0) fixDigit(selection)
  })
}

function segments(selection: Selection, operand: number): MeasureTask<'digits'>[] {
  return split(selection.tensor, segmentBlocks(selection), {
    kind: 'digits',
    operand,
    digits: selection.prefix,
  })
}

/** Takes the next digit from the histograms and lets go of them. */
function fixDigit(selection: Selection): void {
  const { bins, prefix } = selection
  const totals = new Float64Array(bins[0]!.length)
  for (const part of bins) for (let i = 0; i < totals.length; i++) totals[i]! += part[i]!
  let bin = totals.length - 1
  if (prefix.length === 0) {
    bin = finiteBins(selection.dtype) - 1
    selection.nonFinite = totals.subarray(bin + 1).reduce((sum, n) => sum + n, 0)
    const finite = selection.elements - selection.nonFinite
    if (selection.wanted === 0 || selection.wanted >= finite) {
      selection.open = false
      selection.bins = []
      return
    }
  }
  while (selection.above + totals[bin]! < selection.wanted) selection.above += totals[bin--]!
  selection.prefix = [...prefix, bin]
  selection.ties = bins.map((part) => part[bin]!)
  selection.bins = []
}

/** Where not all ties are kept, finds the index of the last that is. */
async function findLastTies(selections: readonly Selection[], { run }: Measuring): Promise<void> {
  const tasks: MeasureTask<'nth'>[] = []
  for (const [operand, selection] of selections.entries()) {
    if (!selection.open) continue
    selection.tieEnd = selection.elements
    let rest = selection.wanted - selection.above // at least one
    if (rest === selection.ties.reduce((sum, n) => sum + n, 0)) continue
    let segment = 0
    while (rest > selection.ties[segment]!) rest -= selection.ties[segment++]!
    const task = { ...segments(selection, operand)[segment]!, kind: 'nth' as const, nth: rest - 1 }
    tasks.push(task)
  }
  const note = ({ operand }: MeasureTask, _: number, index: number) => {
    selections[operand]!.tieEnd = index + 1
  }
  await run(tasks, note, false)
}

function thresholdOf(selection: Selection): Threshold {
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

function countProblems([name, { keep }]: readonly [string, TopK]): Problem[] {
  if (Number.isSafeInteger(keep) && keep >= 0) return []
  return [
    {
      code: 'bad-count',
      message: 'The number of elements to keep must be whole',
      tensor: name,
      expected: '0 or more',
      received: `${keep}`,
    },
  ]
}
