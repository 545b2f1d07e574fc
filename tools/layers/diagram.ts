import { shortName } from './rules.js'
import type { Package } from './scan.js'
import { LAYERS } from './table.js'

const BEGIN = '<!-- layers:begin (written by npm run check -- --fix) -->'
const END = '<!-- layers:end -->'

/** The dependencies between packages as a mermaid graph, one row for each layer, the apps on top. */
export function drawDiagram(packages: readonly Package[]): string {
  const layerOf = (name: string) => LAYERS[shortName(name) ?? '']
  const labelOf = (name: string) => shortName(name) ?? name
  const layers = [...new Set(packages.map(({ name }) => layerOf(name) ?? Infinity))].sort((a, b) => b - a)
  const rows = layers.flatMap((layer) => [
    `  subgraph L${layer === Infinity ? 'apps' : layer}["${layer === Infinity ? 'apps' : `layer ${layer}`}"]`,
    ...packages
      .filter(({ name }) => (layerOf(name) ?? Infinity) === layer)
      .map(({ name }) => `    ${labelOf(name)}`),
    '  end',
  ])
  const edges = packages.flatMap(({ name, dependencies, devDependencies }) => {
    // What an app imports is bundled into it, so it stands among the development dependencies.
    const all = shortName(name) === undefined ? [...dependencies, ...devDependencies] : dependencies
    const inside = packages.map((pkg) => pkg.name).filter((other) => all.includes(other))
    return inside.map((other) => `  ${labelOf(name)} --> ${labelOf(other)}`)
  })
  return ['```mermaid', 'graph TD', ...rows, ...edges, '```'].join('\n')
}

/** `document` with the diagram between its two marks; `undefined` when it has no marks. */
export function putDiagram(document: string, diagram: string): string | undefined {
  const begin = document.indexOf(BEGIN)
  const end = document.indexOf(END)
  if (begin < 0 || end < begin) return undefined
  return `${document.slice(0, begin)}${BEGIN}\n${diagram}\n${document.slice(end)}`
}
