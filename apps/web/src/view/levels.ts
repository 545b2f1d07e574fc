import type { TensorRow } from '../worker/api.js'
import { groupBy } from './group-by.js'

/** A block of the picture: tensors of one layer and group, or of one expert. */
interface Block {
  readonly label: string
  readonly group: string
  readonly parameters: number
  /** What the tensors' names have in common. */
  readonly prefix: string
}

/** A row of the picture: a layer, or what stands outside of layers. */
interface Level {
  readonly label: string
  readonly blocks: readonly Block[]
}

const BELOW = new Set(['embedding'])

/** The model as levels from top to bottom: head and last norm, the layers from the last to the first, the embedding. */
export function levelsOf(tensors: readonly TensorRow[]): readonly Level[] {
  const layers = groupBy(tensors, ({ layer }) => layer)
  const outside = layers.get(undefined) ?? []
  const numbered = [...layers].filter(([layer]) => layer !== undefined).sort(([a], [b]) => b! - a!)
  const top = outside.filter(({ group }) => !BELOW.has(group))
  const bottom = outside.filter(({ group }) => BELOW.has(group))
  return [
    { label: '', blocks: blocksOf(top) },
    ...numbered.map(([layer, inside]) => ({ label: `${layer}`, blocks: blocksOf(inside) })),
    { label: '', blocks: blocksOf(bottom) },
  ].filter(({ blocks }) => blocks.length > 0)
}

function blocksOf(tensors: readonly TensorRow[]): readonly Block[] {
  const keyOf = ({ group, expert }: TensorRow) => (expert === undefined ? group : `${group} ${expert}`)
  const blocks = [...groupBy(tensors, keyOf)].sort(([, [a]], [, [b]]) => placeOf(a!) - placeOf(b!))
  return blocks.map(([label, inside]) => ({
    label,
    group: inside[0]!.group,
    parameters: inside.reduce((sum, { shape }) => sum + shape.reduce((n, size) => n * size, 1), 0),
    prefix: commonPrefix(inside.map(({ name }) => name)),
  }))
}

/** In the order in which a token meets them; experts by their number. */
const ORDER = ['norm', 'attention', 'router', 'ffn', 'expert', 'head']

function placeOf({ group, expert = 0 }: TensorRow): number {
  const place = ORDER.indexOf(group)
  // No model has so many experts in a layer.
  return (place < 0 ? ORDER.length : place) * 1e6 + expert
}

function commonPrefix(names: readonly string[]): string {
  let length = names[0]?.length ?? 0
  for (const name of names) while (!name.startsWith(names[0]!.slice(0, length))) length--
  return names[0]?.slice(0, length) ?? ''
}
