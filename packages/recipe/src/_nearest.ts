/** The word of `choices` that `word` was most likely meant to be; undefined when none is near. */
export function nearest(word: string, choices: readonly string[]): string | undefined {
  const wanted = word.toLowerCase()
  const most = Math.max(1, Math.floor(wanted.length / 3))
  const near = choices
    .map((choice) => ({ choice, distance: distanceOf(wanted, choice.toLowerCase()) }))
    .filter(({ distance }) => distance <= most)
    .sort((a, b) => a.distance - b.distance)
  return near[0]?.choice
}

/** Edits (insert, delete, replace, swap of neighbours) that lead from `a` to `b`. */
function distanceOf(a: string, b: string): number {
  let [before, last] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      const steps = [row[j - 1]! + 1, last[j]! + 1, last[j - 1]! + same]
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) steps.push(before[j - 2]! + 1)
      row.push(Math.min(...steps))
    }
    ;[before, last] = [last, row]
  }
  return last[b.length]!
}
