import { finiteBins } from '@polygraft/kernels'
import { type Problem, type Source, type SourceId, type Tensor, throwIfAny } from '@polygraft/tensor'
import {
  collectParts,
  createSelection,
  isOpen,
  noteNonFinite,
  type Selection,
  segments,
  type Threshold,
  type TopK,
  thresholdOf,
} from './_selection.js'
import { chooseWindows, countWindows, readTogether } from './_threshold-windows.js'
import { operandProblems } from './measure.js'
import { bytesOf, type MeasureOptions, type Measuring, measuring } from './measure-run.js'
import type { MeasureTask } from './measure-tasks.js'

/**
 * The exact threshold of the `keep` largest magnitudes of each tensor; of equal ones, those of lowest index.
 * Radix selection over the bits of |x|: F16 and BF16 are passed over once, F32 twice, F64 four times, and a segment (about a
 * thirtieth of a large tensor) once more to find the last of equal magnitudes. Of a large F32 tensor a sample tells where about
 * the threshold lies; one pass then counts what is above and collects what is there, and no other is made unless the sample
 * misled; tensors that share an operand (task vectors of one base) are computed together in it. +0 and -0 are equal.
 * @throws ModelError 'not-a-float', 'bad-count' with every such tensor; what reading throws.
 */
export async function measureThresholds(
  wanted: ReadonlyMap<string, TopK>,
  sources: ReadonlyMap<SourceId, Source>,
  options: MeasureOptions = {},
): Promise<Map<string, Threshold>> {
  const operands = new Map<string, readonly Tensor[]>(
    [...wanted].map(([name, { tensor }]) => [name, [tensor]]),
  )
  throwIfAny([...operandProblems(operands, sources), ...[...wanted].flatMap(countProblems)])
  const selections = [...wanted.values()].map(createSelection)
  const bytesTotal = selections.reduce((sum, { tensor, digits }) => sum + digits * bytesOf([tensor]), 0)
  const names = [...wanted.keys()]
  const together = readTogether(selections.map(({ tensor }) => tensor))
  const groups = together.map((members) => {
    const tensors = members.map((index) => selections[index]!.tensor)
    return [members.map((index) => names[index]!).join(', '), tensors] as const
  })
  const all = new Map([...operands, ...groups])
  await measuring(all, sources, bytesTotal, options, async (measures) => {
    await chooseWindows(selections, measures)
    await countWindows(selections, together, measures)
    for (let digit = 0; selections.some((s) => isOpen(s, digit)); digit++)
      await countDigits(selections, digit, measures)
    await findLastTies(selections, measures)
  })
  return new Map(names.map((name, i) => [name, thresholdOf(selections[i]!)]))
}

/** One pass over every tensor that is still open: fixes the next digit of its threshold. */
async function countDigits(
  selections: readonly Selection[],
  digit: number,
  { run }: Measuring,
): Promise<void> {
  const tasks = selections.flatMap((selection, operand) =>
    isOpen(selection, digit)
      ? (segments(selection, {
          kind: 'digits',
          operand,
          digits: selection.prefix,
        }) as MeasureTask<'digits'>[])
      : [],
  )
  await run(
    tasks,
    collectParts(tasks, (operand, parts) => fixDigit(selections[operand]!, parts)),
    // The pass over windows has counted for all of them.
    ({ operand }) => (selections[operand]!.window ? 0 : 1),
  )
}

/** Takes the next digit from the histograms of all segments. */
function fixDigit(selection: Selection, bins: readonly Uint32Array[]): void {
  const { prefix } = selection
  const totals = new Float64Array(bins[0]!.length)
  for (const part of bins) for (let i = 0; i < totals.length; i++) totals[i]! += part[i]!
  let bin = totals.length - 1
  if (prefix.length === 0) {
    bin = finiteBins(selection.dtype) - 1
    const nonFinite = totals.subarray(bin + 1).reduce((sum, n) => sum + n, 0)
    noteNonFinite(selection, nonFinite)
    if (!selection.open) return
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
    const task = { kind: 'nth', operand, digits: selection.prefix, nth: rest - 1 } as const
    tasks.push(segments(selection, task)[segment]! as MeasureTask<'nth'>)
  }
  const note = ({ operand }: MeasureTask, _: number, index: number) => {
    selections[operand]!.tieEnd = index + 1
  }
  await run(tasks, note, () => 0)
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
