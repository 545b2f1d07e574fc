import {
  insertedLayers,
  layoutOf,
  momentsOf,
  PLAIN_COPIES,
  pieceExpr,
  piecesOf,
  readExpansion,
} from '@polygraft/experts'
import { type JsonObject, ModelError, read } from '@polygraft/tensor'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const dense = {
  model_type: 'llama',
  vocab_size: 20,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
}
const mixtral = { ...dense, model_type: 'mixtral', num_local_experts: 4 }
const granite = { ...dense, model_type: 'granitemoe', num_local_experts: 4 }

describe('readExpansion', () => {
  it('takes what has no recipe for plain copies', () => {
    expect(readExpansion([])).toEqual(PLAIN_COPIES)
    expect(readExpansion([{ op: 'train' }])).toEqual(PLAIN_COPIES)
  })

  it('reads the last upcycling', () => {
    const steps = [
      { op: 'upcycle', granularity: 8 },
      {
        op: 'upcycle',
        granularity: 2,
        sharedExpert: 'derived',
        inputs: { experts: { 1: 'x' } },
        others: 'mean',
      },
    ]
    expect(readExpansion(steps)).toEqual({
      granularity: 2,
      sharedExpert: 'derived',
      routedFactor: 0.5,
      foreign: [1],
      mean: true,
    })
  })

  it.each<JsonObject>([
    { op: 'upcycle', granularity: 0 },
    { op: 'upcycle', granularity: '2' },
    { op: 'upcycle', sharedExpert: 'both' },
    { op: 'upcycle', expertInit: { kind: 'noise', std: -1 } },
    { op: 'upcycle', expertInit: { kind: 'drop', rate: 2 } },
    { op: 'upcycle', expertInit: { kind: 'drop', rate: 0.5, moments: { a: [1] } } },
    { op: 'upcycle', expertInit: { kind: 'drop', rate: 0.5 }, seed: 0.5 },
    { op: 'expand', after: [0], layers: 1e9 },
    { op: 'expand', after: [-1], layers: 2 },
    { op: 'expand' },
  ])('refuses %j', (step) => {
    expect(() => readExpansion([step])).toThrow(ModelError)
  })
})

describe('insertedLayers', () => {
  it('keeps all layers in order, and inserts as often as asked for', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 9 }), fc.array(fc.nat(8)), (count, wanted) => {
        const after = wanted.filter((layer) => layer < count)
        const layers = insertedLayers(count, after)
        expect(layers.filter((layer) => layer !== null)).toEqual(Array.from({ length: count }, (_, l) => l))
        expect(layers).toHaveLength(count + after.length)
        expect(layers[0]).toBe(0)
      }),
    )
  })
})

describe('pieces', () => {
  const finer = layoutOf({ ...mixtral, intermediate_size: 6 }, dense, { ...PLAIN_COPIES, granularity: 2 })

  it('cover each dense matrix once for each copy, in parts', () => {
    const parts = [0, 1, 2, 3].map((e) => {
      const [piece] = piecesOf(finer, `model.layers.1.block_sparse_moe.experts.${e}.w2.weight`)
      return [piece!.dense, piece!.copy, piece!.part, piece!.parts, piece!.factor]
    })
    const name = 'model.layers.1.mlp.down_proj.weight'
    expect(parts).toEqual([
      [name, 0, 0, 2, 2],
      [name, 0, 1, 2, 2],
      [name, 1, 0, 2, 2],
      [name, 1, 1, 2, 2],
    ])
  })

  it('of a fused tensor come expert by expert, gate before up', () => {
    const pieces = piecesOf(
      layoutOf(granite, dense, PLAIN_COPIES),
      'model.layers.0.block_sparse_moe.input_linear.weight',
    )
    expect(pieces.map(({ copy, dense: from }) => `${copy} ${from.split('.')[4]}`)).toEqual(
      [0, 1, 2, 3].flatMap((e) => [`${e} gate_proj`, `${e} up_proj`]),
    )
  })

  it('share the expression of equal parts, so that it is computed once', () => {
    const x = read('base', 'model.layers.0.mlp.up_proj.weight')
    const at = (e: number) => piecesOf(finer, `model.layers.0.block_sparse_moe.experts.${e}.w3.weight`)[0]!
    expect(pieceExpr(at(1), x)).toBe(pieceExpr(at(3), x))
    expect(pieceExpr(at(0), x)).not.toBe(pieceExpr(at(1), x))
  })

  it('are none for routers and names of no model', () => {
    expect(piecesOf(finer, 'model.layers.0.block_sparse_moe.gate.weight')).toEqual([])
    expect(piecesOf(finer, 'score.weight')).toEqual([])
  })
})

describe('momentsOf', () => {
  it('is mean and population deviation', () => {
    expect(momentsOf(10, 30, 4)).toEqual([2.5, Math.sqrt(1.25)])
    expect(momentsOf(4, 4, 4)).toEqual([1, 0])
  })
})
