import { digitCounter } from '@polygraft/kernels'
import { collectParts, noteNonFinite, type Selection, segments } from './_selection.js'
import type { Measuring } from './measure-run.js'
import type { MeasureTask, WindowResult } from './measure-tasks.js'

/** Elements from which on a sample is worth its while. */
const MIN_SAMPLED = 2 ** 20

/** Samples the tensors that are worth it, and notes between which magnitudes their thresholds must lie, if it can. */
export async function chooseWindows(selections: readonly Selection[], { run }: Measuring): Promise<void> {
  const tasks = selections.flatMap(({ dtype, elements, wanted }, operand): MeasureTask<'sample'>[] =>
    dtype === 'F32' && elements >= MIN_SAMPLED && wanted > 0 && wanted < elements
      ? [{ kind: 'sample', operand, begin: 0, count: elements, share: wanted / elements }]
      : [],
  )
  await run(
    tasks,
    ({ operand }, _, window) => {
      selections[operand]!.window = window
    },
    () => 0,
  )
}

/** One pass over the tensors with a window: finds those of their thresholds that lie in it, which is nearly all. */
export async function countWindows(selections: readonly Selection[], { run }: Measuring): Promise<void> {
  const tasks = selections.flatMap((selection, operand) => {
    const { window } = selection
    return window ? (segments(selection, { kind: 'window', operand, window }) as MeasureTask<'window'>[]) : []
  })
  await run(
    tasks,
    collectParts(tasks, (operand, parts) => fixByWindow(selections[operand]!, parts)),
    () => 2,
  )
}

/** Fixes both digits of a threshold that lies in its window. */
function fixByWindow(selection: Selection, parts: readonly WindowResult[]): void {
  const { common } = selection.window!
  const total = (of: (part: WindowResult) => number) => parts.reduce((sum, part) => sum + of(part), 0)
  noteNonFinite(
    selection,
    total(({ nonFinite }) => nonFinite),
  )
  const above = total((part) => part.above)
  const commonly = common.map((_, i) => total((part) => part.common[i]!))
  const inside = commonly.reduce(
    (sum, n) => sum + n,
    total(({ rest }) => rest?.length ?? 0),
  )
  const { wanted, open } = selection
  const isComplete = parts.every(({ rest }) => rest)
  if (!open || !isComplete || above >= wanted || above + inside < wanted) return
  const rests = parts.map(({ rest }) => rest!)
  selection.above = above
  for (let digit = 0; digit < 2; digit++) fixDigit(selection, rests, common, commonly)
  const threshold = selection.prefix[0]! * 0x10000 + selection.prefix[1]!
  const which = common.indexOf(threshold)
  selection.ties = parts.map((part) =>
    which >= 0 ? part.common[which]! : part.rest!.reduce((sum, each) => sum + Number(each === threshold), 0),
  )
}

/** Takes the next digit from all magnitudes of a window. @param counts of the common ones. */
function fixDigit(
  selection: Selection,
  rests: readonly Uint32Array[],
  common: readonly number[],
  counts: readonly number[],
): void {
  const { prefix } = selection
  const counter = digitCounter('F32', prefix)
  for (const rest of rests) counter.add(new Uint8Array(rest.buffer, rest.byteOffset, rest.byteLength))
  const bins = counter.bins()
  for (const [i, magnitude] of common.entries())
    if (prefix.length === 0) bins[magnitude >>> 16]! += counts[i]!
    else if (magnitude >>> 16 === prefix[0]) bins[magnitude & 0xffff]! += counts[i]!
  let bin = bins.length - 1
  while (selection.above + bins[bin]! < selection.wanted) selection.above += bins[bin--]!
  selection.prefix = [...prefix, bin]
}
