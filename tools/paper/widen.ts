import { type Checkpoint, literal, type StateDict, type Tensor } from '@polygraft/tensor'

/** As 1 / sqrt(H) at H = 64. */
const NEW_NEURON_STD = 0.125

/**
 * A dense model with `factor` times the neurons in every feed-forward block. New ones have random inputs and no output, so that the model computes what it did;
 * of two models that are widened with one seed they are the same.
 */
export function widen(checkpoint: Checkpoint, factor: number, seed: number): Checkpoint {
  const { config, tensors } = checkpoint
  const size = Number(config.intermediate_size)
  const widened: StateDict = new Map(
    [...tensors].map(([name, tensor]) => {
      if (/mlp\.(gate|up)_proj/.test(name)) return [name, moreRows(name, tensor, factor, seed)]
      if (/mlp\.down_proj/.test(name)) return [name, moreColumns(tensor, factor)]
      return [name, tensor]
    }),
  )
  return { ...checkpoint, config: { ...config, intermediate_size: size * factor }, tensors: widened }
}

function moreRows(name: string, { dtype, shape, expr }: Tensor, factor: number, seed: number): Tensor {
  const [rows, width] = shape as [number, number]
  const added = rows * (factor - 1)
  const random = { op: 'random', distribution: 'normal', scale: NEW_NEURON_STD, seed, name } as const
  return {
    dtype,
    shape: [rows + added, width],
    expr: { op: 'concat', args: [expr, random], sizes: [rows * width, added * width] },
  }
}

/** Each row followed by zeros. */
function moreColumns({ dtype, shape, expr }: Tensor, factor: number): Tensor {
  const [rows, width] = shape as [number, number]
  const zeros = literal(new Float32Array(width))
  const withZeros = { op: 'concat', args: [expr, zeros], sizes: [rows * width, width] } as const
  const runs = Array.from({ length: rows }, (_, row) => [
    [row, 1] as const,
    ...Array.from({ length: factor - 1 }, () => [rows, 1] as const),
  ]).flat()
  return { dtype, shape: [rows, width * factor], expr: { op: 'rows', arg: withZeros, width, runs } }
}
