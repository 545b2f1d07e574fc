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
import { type DigitResult, type MeasureTask, WINDOW_SHARE } from './measure-tasks.js'

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
 * Radix selection over the bits of |x|: F16 and BF16 are passed over once, F32 twice, F64 four times, and a segment (about a
 * thirtieth of a large tensor) once more to find the last of equal magnitudes. For a large F32 tensor a sample tells where
 * about the threshold lies; its neighbours are collected in the first pass, which spares the second unless the sample was wrong. +0 and -0 are equal.
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
    await chooseWindows(selections, measures)
    for (let digit = 0; selections.some((s) => isOpen(s, digit)); digit++)
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
  /** First digits between which the threshold is expected, by a sample. */
  window: readonly [low: number, high: number] | undefined
  /** A histogram for each segment, until they are all there. */
  counted: DigitResult[]
  tieEnd: number
}

/** Whether digit `digit` of the threshold is still to be found. */
function isOpen({ open, digits, prefix }: Selection, digit: number): boolean {
  return open && digit < digits && prefix.length === digit
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
    window: undefined,
    counted: [],
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

/** Samples the tensors that are worth it, and notes between which first digits their thresholds must lie, if it can. */
async function chooseWindows(selections: readonly Selection[], { run }: Measuring): Promise<void> {
  const tasks = selections.flatMap(({ dtype, elements, wanted }, operand): MeasureTask<'sample'>[] =>
    dtype === 'F32' && elements >= MIN_SAMPLED && wanted > 0 && wanted < elements
      ? [{ kind: 'sample', operand, begin: 0, count: elements }]
      : [],
  )
  const note = ({ operand }: MeasureTask, _: number, bins: Uint32Array) => {
    const { wanted, elements } = selections[operand]!
    selections[operand]!.window = windowOf(bins, wanted / elements)
  }
  await run(tasks, note, () => 0)
}

/** Elements from which on a sample is worth its while. */
const MIN_SAMPLED = 2 ** 20
/** Half width of a window, in standard deviations of a rank in the sample: neighbouring weights are not independent. */
const MARGIN = 8

/** The first digits around the upper quantile `share`; undefined where too many elements lie there. */
function windowOf(bins: Uint32Array, share: number): readonly [number, number] | undefined {
  const sampled = bins.reduce((sum, n) => sum + n, 0)
  const margin = MARGIN * Math.sqrt(sampled * share * (1 - share)) + MARGIN
  const binAt = (rank: number) => {
    let bin = finiteBins('F32') - 1
    for (let above = bins[bin]!; above < rank && bin > 0; above += bins[bin]!) bin--
    return bin
  }
  const high = binAt(sampled * share - margin)
  const low = binAt(sampled * share + margin)
  const inside = bins.subarray(low, high + 1).reduce((sum, n) => sum + n, 0)
  return inside * WINDOW_SHARE * 1.5 < sampled ? [low, high] : undefined
}

/** One pass over every tensor that is still open: fixes the next digit of its threshold. */
async function countDigits(
  selections: readonly Selection[],
  digit: number,
  { run }: Measuring,
): Promise<void> {
  const tasks = selections.flatMap((selection, operand) =>
    isOpen(selection, digit) ? segments(selection, operand) : [],
  )
  const first = new Map<number, number>()
  for (const [i, { operand }] of tasks.entries()) if (!first.has(operand)) first.set(operand, i)
  const left = new Map<number, number>()
  for (const { operand } of tasks) left.set(operand, (left.get(operand) ?? 0) + 1)
  const note = ({ operand }: MeasureTask, index: number, result: DigitResult) => {
    const selection = selections[operand]!
    selection.counted[index - first.get(operand)!] = result
    left.set(operand, left.get(operand)! - 1)
    if (left.get(operand)! > 0) return
    fixDigit(selection)
    if (digit === 0 && selection.open) useWindow(selection)
    selection.counted = []
  }
  // A pass that a window may spare counts with the first one.
  await run(tasks, note, ({ operand }) => (selections[operand]!.window ? (digit === 0 ? 2 : 0) : 1))
}

/** Fixes the second digit by what the first pass collected, if that has the threshold's first digit. */
function useWindow(selection: Selection): void {
  const { window, prefix, counted } = selection
  const [first] = prefix
  if (!window || first! < window[0] || first! > window[1]) return
  if (counted.some(({ found }) => found === undefined)) return
  selection.counted = counted.map(({ found }) => {
    const bins = new Uint32Array(0x10000)
    for (const magnitude of found!) if (magnitude >>> 16 === first) bins[magnitude & 0xffff]!++
    return { bins }
  })
  fixDigit(selection)
}

function segments(selection: Selection, operand: number): MeasureTask<'digits'>[] {
  return split(selection.tensor, segmentBlocks(selection), {
    kind: 'digits',
    operand,
    digits: selection.prefix,
    ...(selection.window && selection.prefix.length === 0 ? { window: selection.window } : {}),
  })
}

/** Takes the next digit from the histograms. */
function fixDigit(selection: Selection): void {
  const { prefix } = selection
  const bins = selection.counted.map((part) => part.bins)
  const totals = new Float64Array(bins[0]!.length)
  for (const part of bins) for (let i = 0; i < totals.length; i++) totals[i]! += part[i]!
  let bin = totals.length - 1
  if (prefix.length === 0) {
    bin = finiteBins(selection.dtype) - 1
    selection.nonFinite = totals.subarray(bin + 1).reduce((sum, n) => sum + n, 0)
    const finite = selection.elements - selection.nonFinite
    if (selection.wanted === 0 || selection.wanted >= finite) {
      selection.open = false
      return
    }
  }
  while (selection.above + totals[bin]! < selection.wanted) selection.above += totals[bin--]!
  selection.prefix = [...prefix, bin]
  selection.ties = bins.map((part) => part[bin]!)
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
  await run(tasks, note, () => 0)
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
