import { digitCounter, type RankWindow } from '@polygraft/kernels'
import { numel, reads, type Tensor } from '@polygraft/tensor'
import { isElementwise } from './_elementwise.js'
import type { WindowResult } from './_rank-passes.js'
import { collectParts, noteNonFinite, type Selection, segments } from './_selection.js'
import type { Measuring } from './measure-run.js'
import type { MeasureTask } from './measure-tasks.js'

/** Tensors of fewer elements are collected whole: a window of everything. */
const MIN_SAMPLED = 2 ** 17
const EVERYTHING: RankWindow = { low: 0, high: 0x7f7fffff, common: [] }

/** Notes between which magnitudes thresholds must lie: by a sample, where a tensor is worth one. */
export async function chooseWindows(selections: readonly Selection[], { run }: Measuring): Promise<void> {
  const tasks: MeasureTask<'sample'>[] = []
  for (const [operand, selection] of selections.entries()) {
    const { dtype, elements, wanted } = selection
    if (dtype !== 'F32' || elements === 0) continue
    if (elements < MIN_SAMPLED) selection.window = EVERYTHING
    else if (wanted > 0 && wanted < elements)
      tasks.push({ kind: 'sample', operand, begin: 0, count: elements, share: wanted / elements })
  }
  await run(
    tasks,
    ({ operand }, _, window) => {
      selections[operand]!.window = window
    },
    () => 0,
  )
}

/** The most tensors that are computed together: each has a tile in memory. */
const MAX_TOGETHER = 4

/**
 * Tensors, by index, that read a stored tensor in common, like task vectors of one base: one pass computes them together and reads
 * that once.
 */
export function readTogether(tensors: readonly Tensor[]): readonly (readonly number[])[] {
  const groups: number[][] = []
  const groupOf = new Map<string, number[]>()
  for (const [index, { dtype, shape, expr }] of tensors.entries()) {
    if (dtype !== 'F32' || !isElementwise(expr)) continue
    const keys = [...reads(expr)].map(({ source, tensor }) => `${numel(shape)} ${source} ${tensor}`)
    const open = keys.map((key) => groupOf.get(key)).find((group) => group && group.length < MAX_TOGETHER)
    const group = open ?? []
    if (!open) groups.push(group)
    group.push(index)
    for (const key of keys) groupOf.set(key, group)
  }
  return groups.filter(({ length }) => length > 1)
}

/**
 * One pass over the tensors with a window: finds those of their thresholds that lie in it, which is nearly all.
 * @param together groups of selections; the operands of these follow those of the selections.
 */
export async function countWindows(
  selections: readonly Selection[],
  together: readonly (readonly number[])[],
  { run }: Measuring,
): Promise<void> {
  const groups = together
    .map((members, i) => ({ operand: selections.length + i, members }))
    .filter(({ members }) => members.every((index) => selections[index]!.window))
  const grouped = new Set(groups.flatMap(({ members }) => members))
  const alone = [...selections.keys()]
    .filter((index) => selections[index]!.window && !grouped.has(index))
    .map((index) => ({ operand: index, members: [index] }))
  const passes = new Map(
    [...groups, ...alone].map(({ operand, members }) => [
      operand,
      members.map((index) => selections[index]!),
    ]),
  )
  const tasks = [...passes].flatMap(([operand, members]) => {
    const windows = members.map(({ window }) => window!)
    const isWhole = windows.every((window) => window === EVERYTHING)
    const task = { kind: 'window', operand, windows, isWhole } as const
    return segments(members[0]!, task) as MeasureTask<'window'>[]
  })
  await run(
    tasks,
    collectParts(tasks, (operand, parts: readonly (readonly WindowResult[])[]) => {
      for (const [i, selection] of passes.get(operand)!.entries())
        fixByWindow(
          selection,
          parts.map((part) => part[i]!),
        )
    }),
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
  const collected = total(({ rest }) => rest!.length)
  if (collected <= MAX_SORTED)
    fixBySorting(selection, rests, new Map(common.map((m, i) => [m, commonly[i]!])))
  else for (let digit = 0; digit < 2; digit++) fixDigit(selection, rests, common, commonly)
  const threshold = selection.prefix[0]! * 0x10000 + selection.prefix[1]!
  const which = common.indexOf(threshold)
  selection.ties = parts.map((part) =>
    which >= 0 ? part.common[which]! : part.rest!.reduce((sum, each) => sum + Number(each === threshold), 0),
  )
}

/** Magnitudes that are sooner sorted than counted. */
const MAX_SORTED = 2 ** 14

/** Takes both digits. @param counts of the common magnitudes. */
function fixBySorting(
  selection: Selection,
  rests: readonly Uint32Array[],
  counts: ReadonlyMap<number, number>,
): void {
  const values = Uint32Array.from([...rests.flatMap((rest) => [...rest]), ...counts.keys()]).sort()
  const countOf = (magnitude: number) => counts.get(magnitude) ?? 1
  let at = values.length - 1
  let seen = selection.above
  while (seen + countOf(values[at]!) < selection.wanted) seen += countOf(values[at--]!)
  const threshold = values[at]!
  while (values[++at] === threshold) seen-- // equal ones that were seen are not above
  selection.above = seen
  selection.prefix = [threshold >>> 16, threshold & 0xffff]
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
