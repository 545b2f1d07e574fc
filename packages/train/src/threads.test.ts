import { expectedTensors, familyOf } from '@polygraft/architectures'
import { createTeam, type Team } from '@polygraft/engine'
import { createTrainer, decoderSpec, tensorNames } from '@polygraft/train'
import { expect, it } from 'vitest'

const config = {
  model_type: 'qwen2_moe',
  vocab_size: 37,
  hidden_size: 24,
  intermediate_size: 20,
  moe_intermediate_size: 12,
  shared_expert_intermediate_size: 8,
  num_hidden_layers: 3,
  mlp_only_layers: [1],
  num_attention_heads: 6,
  num_key_value_heads: 2,
  num_experts: 3,
  num_experts_per_tok: 2,
  norm_topk_prob: true,
}
const spec = decoderSpec(config)
const batch = {
  tokens: Int32Array.from({ length: 61 }, (_, i) => (i * 7) % 37),
  targets: Int32Array.from({ length: 61 }, (_, i) => (i === 16 ? -1 : (i * 11) % 37)),
  segments: [
    { begin: 0, end: 17 },
    { begin: 17, end: 18 },
    { begin: 18, end: 61 },
  ],
}

/** Every value after three steps, of which each takes two batches. */
function train(team?: Team): { values: Map<string, number[]>; losses: number[] } {
  const trainer = createTrainer(
    spec,
    expectedTensors(familyOf(config), config),
    new Map(tensorNames(spec).map((name) => [name, 1])),
    {
      ...{ steps: 3, rate: 0.01, warmup: 0, floor: 0.1, clip: 1 },
      adam: { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: 0.05 },
      losses: { balance: 0.1, z: 0.01 },
      ...(team ? { team } : {}),
    },
  )
  let i = 0
  for (const value of trainer.values.values())
    for (let j = 0; j < value.length; j++) value[j] = Math.sin(++i * 12.9) * 0.3
  const losses = [1, 2, 3].map(() => trainer.update([batch, batch]).loss)
  return { values: new Map([...trainer.values].map(([name, value]) => [name, [...value]])), losses }
}

it.each([2, 3])('%i threads train to the same bits as one', async (threads) => {
  const alone = train()
  const team = await createTeam(threads)
  try {
    expect(train(team)).toEqual(alone)
  } finally {
    await team.close()
  }
  expect(alone.losses[2]).toBeLessThan(alone.losses[0]!)
})
