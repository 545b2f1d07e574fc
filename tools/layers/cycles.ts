/** Edges of a directed graph: from each node to those it leads to. */
export type Graph = ReadonlyMap<string, readonly string[]>

/**
 * A cycle for every edge that closes one in a depth-first walk, each as its nodes in order with the first repeated at the
 * end. Empty exactly when the graph has no cycle. Edges to unknown nodes are ignored.
 */
export function findCycles(graph: Graph): readonly (readonly string[])[] {
  const cycles: string[][] = []
  const done = new Set<string>()
  const path: string[] = []
  const visit = (node: string): void => {
    const open = path.indexOf(node)
    if (open >= 0) cycles.push([...path.slice(open), node])
    if (open >= 0 || done.has(node)) return
    path.push(node)
    for (const next of graph.get(node) ?? []) visit(next)
    path.pop()
    done.add(node)
  }
  for (const node of graph.keys()) visit(node)
  return cycles
}
