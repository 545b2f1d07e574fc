import { expectedTensors, familyOf } from '@polygraft/architectures'
import { ModelError } from '@polygraft/tensor'
import {
  createTrainer,
  decoderSpec,
  formatTrainingState,
  restoreTrainingState,
  runTraining,
  type StepReport,
  selectTensors,
  tensorNames,
} from '@polygraft/train'
import { describe, expect, it } from 'vitest'

const config = {
  model_type: 'mixtral',
  vocab_size: 13,
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  num_local_experts: 3,
  num_experts_per_tok: 2,
}
const spec = decoderSpec(config)
const shapes = expectedTensors(familyOf(config), config)
const adam = { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: 0.05 }
const losses = { balance: 0.01, z: 0, lpr: 0.1 }
const options = { steps: 8, rate: 0.02, warmup: 2, floor: 0.1, clip: 1, adam, losses }
const sequences = [4, 7, 5, 6].map((length, s) => ({
  tokens: Int32Array.from({ length }, (_, i) => (i * 3 + s) % 13),
  targets: Int32Array.from({ length }, (_, i) => (i + 1 < length ? (i * 3 + 3 + s) % 13 : -1)),
}))
const data = [
  { language: 'a', weight: 1, sequences: sequences.slice(0, 2), isOriginal: true },
  { language: 'b', weight: 1, sequences: sequences.slice(2) },
]
const run = { steps: 8, seed: 3, batchTokens: 16, accumulation: 2 }

function begin(trained = selectTensors(spec, 'cpt', {})) {
  const trainer = createTrainer(spec, shapes, trained, options)
  let i = 0
  for (const value of trainer.values.values())
    for (let j = 0; j < value.length; j++) value[j] = Math.sin(++i * 12.9) * 0.4
  return trainer
}

describe('runTraining', () => {
  it('learns, leaves frozen tensors alone, and reports', async () => {
    const trainer = begin()
    const before = new Map([...trainer.values].map(([name, value]) => [name, value.slice()]))
    const reports: StepReport[] = []
    await runTraining(trainer, data, { ...run, onStep: (report) => void reports.push(report) })
    expect(reports.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    expect(reports[7]!.loss).toBeLessThan(reports[0]!.loss)
    for (const { load } of reports) expect(load.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 12)
    for (const [name, value] of trainer.values) {
      const isSame = value.every((x, i) => x === before.get(name)![i])
      expect(isSame, name).toBe(!/block_sparse_moe\.(gate|experts\.[12])/.test(name))
    }
  })

  it('ends in the same bytes when it goes on from a saved state', async () => {
    const whole = begin()
    let saved: Uint8Array | undefined
    await runTraining(whole, data, {
      ...run,
      onStep: ({ step }, drawn) => {
        if (step === 3) saved = formatTrainingState(whole, drawn)
      },
    })
    const rest = begin()
    const drawn = await restoreTrainingState(rest, new Blob([new Uint8Array(saved!)]), 'training.state')
    expect(rest.step).toBe(3)
    await runTraining(rest, data, { ...run, drawn, onStep() {} })
    for (const set of ['values', 'first', 'second'] as const)
      for (const [name, value] of whole[set]) expect([...rest[set].get(name)!], name).toEqual([...value])
  })

  it('refuses the state of a run that trains something else', async () => {
    const state = formatTrainingState(begin(), [])
    const other = begin(selectTensors(spec, 'review', {}))
    const error = await restoreTrainingState(other, new Blob([new Uint8Array(state)]), 's').catch((e) => e)
    expect(error).toBeInstanceOf(ModelError)
    expect(error.code).toBe('unexpected-tensor')
    expect(error.problems.length).toBe(36)
  })

  it('stops at NaN with the step and the tensor, and changes nothing', async () => {
    const trainer = begin()
    trainer.values.get('model.layers.1.block_sparse_moe.experts.2.w1.weight')![0] = Number.NaN
    const kept = trainer.values.get('model.layers.0.block_sparse_moe.gate.weight')!.slice()
    const error = await runTraining(trainer, data, { ...run, onStep() {} }).catch((e) => e)
    expect([error.code, trainer.step]).toEqual(['not-finite', 0])
    expect(error.message).toMatch(/^Step 1 /)
    expect(trainer.values.get('model.layers.0.block_sparse_moe.gate.weight')).toEqual(kept)
  })
})

describe('selectTensors', () => {
  it('is what the stage trains, less what is frozen, with rates', () => {
    const routers = tensorNames(spec).filter((name) => name.endsWith('gate.weight'))
    expect([...selectTensors(spec, 'review', {}).keys()]).toEqual(routers)
    expect(selectTensors(spec, 'sft', {}).size).toBe(tensorNames(spec).length)
    const chosen = selectTensors(spec, 'cpt', {
      freeze: ['*.1.*'],
      rates: [{ pattern: '*gate*', factor: 5 }],
    })
    expect(chosen.get('model.layers.0.block_sparse_moe.gate.weight')).toBe(5)
    expect(chosen.get('model.layers.0.block_sparse_moe.experts.2.w2.weight')).toBe(1)
    expect([...chosen.keys()].filter((name) => name.includes('.1.'))).toEqual([])
  })

  it.each([
    ['a pattern of nothing', 'cpt', { freeze: ['*nobody*', '*.w1.*'] }, 'no-match'],
    ['all frozen', 'cpt', { freeze: ['*'] }, 'nothing-to-train'],
  ] as const)('refuses %s', (_, stage, selection, code) => {
    expect(() => selectTensors(spec, stage, selection)).toThrow(expect.objectContaining({ code }))
  })
})
