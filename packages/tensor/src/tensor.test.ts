import {
  byteSize,
  type Checkpoint,
  DTYPE_BITS,
  type DType,
  type Expr,
  literal,
  literalValues,
  ModelError,
  mergeSources,
  numel,
  pipe,
  read,
  reads,
  type Source,
  scale,
  stateDictOf,
  throwIfAny,
} from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const source: Source = {
  id: 's',
  location: 'memory',
  tensors: new Map([['w', { dtype: 'BF16', shape: [2, 3], file: 'model.safetensors', begin: 8, end: 20 }]]),
  shards: new Map(),
}
const checkpoint: Checkpoint = {
  config: {},
  tensors: stateDictOf(source),
  files: new Map(),
  sources: new Map([['s', source]]),
  provenance: { recipe: [], skipped: [] },
}

describe('dtype', () => {
  it('has the sizes of the format', () => {
    expect(numel([])).toBe(1)
    expect(numel([0, 7])).toBe(0)
    expect(byteSize('BF16', 3)).toBe(6)
    expect(byteSize('F4', 6)).toBe(3)
    expect(byteSize('F6_E2M3', 4)).toBe(3)
    for (const dtype of Object.keys(DTYPE_BITS) as DType[]) expect(byteSize(dtype, 8)).toBe(DTYPE_BITS[dtype])
  })
})

describe('expr', () => {
  it('lists every read, repeats included', () => {
    const a = read('s', 'a')
    const b = read('t', 'b')
    const expr: Expr = {
      op: 'concat',
      args: [{ op: 'graft', cpt: a, base: b, post: a, lambda: 1 }, scale(2, b)],
      sizes: [4, 4],
    }
    expect([...reads(expr)].map((r) => r.tensor)).toEqual(['a', 'b', 'a', 'b'])
  })

  it('keeps literals bit for bit through JSON', () => {
    fc.assert(
      fc.property(fc.float32Array(), (values) => {
        const expr = JSON.parse(JSON.stringify(literal(values)))
        expect(literalValues(expr)).toEqual(values)
      }),
    )
  })

  it('scale by one is the argument itself', () => {
    const a = read('s', 'a')
    expect(scale(1, a)).toBe(a)
  })
})

describe('checkpoint', () => {
  it('pipe applies from left to right', () => {
    const tag = (t: string) => (c: Checkpoint) => ({
      ...c,
      config: { ...c.config, order: `${c.config.order ?? ''}${t}` },
    })
    expect(pipe(checkpoint, tag('a'), tag('b')).config.order).toBe('ab')
  })

  it('a fresh state dict reads what is stored', () => {
    expect(checkpoint.tensors.get('w')).toEqual({ dtype: 'BF16', shape: [2, 3], expr: read('s', 'w') })
    expect([...mergeSources(checkpoint, checkpoint).keys()]).toEqual(['s'])
  })
})

describe('ModelError', () => {
  it('says what, where, expected, received and what next, for every problem', () => {
    const problems = ['a', 'b'].map((tensor) => ({
      code: 'shape-mismatch',
      message: 'Shapes differ',
      tensor,
      expected: '[2, 3]',
      received: '[3, 2]',
      next: 'Check that both come from the same family.',
    }))
    const error = new ModelError(problems)
    expect(error.code).toBe('shape-mismatch')
    expect(error.tensor).toBe('a')
    expect(error.message).toContain('tensor b')
    expect(error.message).toContain('expected: [2, 3]')
    expect(() => throwIfAny(problems)).toThrow(ModelError)
    expect(() => throwIfAny([])).not.toThrow()
  })
})
