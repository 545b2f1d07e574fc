import { expectedTensors, familyOf } from '@polygraft/architectures'
import { numel } from '@polygraft/tensor'
import { createWorkspace, decoderSpec, lossAndGradients } from '@polygraft/train'
import { describe, expect, it } from 'vitest'

const config = {
  model_type: 'mixtral',
  vocab_size: 31,
  hidden_size: 24,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  num_local_experts: 3,
  num_experts_per_tok: 2,
}
const batch = {
  tokens: Int32Array.from({ length: 40 }, (_, i) => (i * 7) % 31),
  targets: Int32Array.from({ length: 40 }, (_, i) => (i === 16 ? -1 : (i * 11) % 31)),
  segments: [
    { begin: 0, end: 17, isOriginal: true },
    { begin: 17, end: 40 },
  ],
}
const spec = decoderSpec(config)
const shapes = [...expectedTensors(familyOf(config), config)]
const losses = { balance: 0.1, z: 0.01, lpr: 0.2 }
const drawn = shapes.map(
  ([name, shape], t) =>
    [
      name,
      Float64Array.from({ length: numel(shape) }, (_, i) => Math.fround(Math.sin(t * 9 + i * 78.2) * 0.4)),
    ] as const,
)

function simd() {
  const workspace = createWorkspace()
  const values = new Map(
    drawn.map(([name, value]) => {
      const place = workspace.allocate(value.length)
      place.set(value)
      return [name, place]
    }),
  )
  const gradients = new Map(drawn.map(([name, value]) => [name, workspace.allocate(value.length).fill(0)]))
  return { workspace, values, gradients }
}

describe('the workspace with SIMD products', () => {
  it('gives the loss and gradients of plain F64', () => {
    const exact = new Map(drawn.map(([name, value]) => [name, new Float64Array(value.length)]))
    const expected = lossAndGradients(spec, new Map(drawn), exact, batch, { losses })
    const { workspace, values, gradients } = simd()
    expect(lossAndGradients(spec, values, gradients, batch, { losses, workspace })).toBeCloseTo(expected, 5)
    for (const [name, gradient] of gradients) {
      const right = exact.get(name)!
      const gap = Math.hypot(...Array.from(gradient, (g, i) => g - right[i]!))
      expect(gap / Math.hypot(...right), name).toBeLessThan(5e-6)
    }
  })

  it('takes no more memory the second time, and adds to the gradients', () => {
    const { workspace, values, gradients } = simd()
    const before = workspace.mark()
    const loss = lossAndGradients(spec, values, gradients, batch, { losses, workspace })
    const peak = workspace.peakBytes
    const once = new Map([...gradients].map(([name, gradient]) => [name, Float32Array.from(gradient)]))
    expect(lossAndGradients(spec, values, gradients, batch, { losses, workspace })).toBe(loss)
    expect([workspace.mark(), workspace.peakBytes]).toEqual([before, peak])
    for (const [name, gradient] of gradients)
      gradient.forEach((g, i) => {
        expect(g).toBeCloseTo(2 * once.get(name)![i]!, 4)
      })
  })

  it('keeps views while it grows, and refuses beyond 4 GiB', () => {
    const workspace = createWorkspace()
    const first = workspace.allocate(3)
    first.set([1, 2, 3])
    const mark = workspace.mark()
    workspace.allocate(6 * 2 ** 20).fill(7)
    expect([...first]).toEqual([1, 2, 3])
    workspace.release(mark)
    expect(() => workspace.allocate(2 ** 30)).toThrow(/out-of-memory/)
  })
})
