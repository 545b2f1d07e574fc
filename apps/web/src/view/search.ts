import type { TensorRow } from '../worker/api.js'

/** Tensors whose name, dtype or shape has every word of `query` in it. */
export function search(tensors: readonly TensorRow[], query: string): readonly TensorRow[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  if (words.length === 0) return tensors
  return tensors.filter(({ name, dtype, shape }) => {
    const described = `${name} ${dtype} ${shape.join('x')}`.toLowerCase()
    return words.every((word) => described.includes(word))
  })
}
