import { graft, graftProblems, verify, verifyUpcycle } from '@polygraft/graft'
import { type Checkpoint, type JsonObject, pipe, type Tensor } from '@polygraft/tensor'
import { describe, expect, it } from 'vitest'
import { contentOf, denseModel, mixtureOf, perturb, store } from '../test/models.js'

const allow = [{ tensors: 'score.*', reason: 'a head for ranking' }]

/** With a tensor that no model of the family has. */
function scored(checkpoint: Checkpoint): Promise<Checkpoint> {
  const extra: Tensor = checkpoint.tensors.get('model.norm.weight')!
  return store({ ...checkpoint, tensors: new Map([...checkpoint.tensors, ['score.weight', extra]]) })
}

async function trio() {
  const base = await denseModel('llama', 1)
  const post = await store(base, { edit: perturb(2, 0.5) })
  const plain = { base, post, cpt: await store(mixtureOf(base, 2)) }
  const given = { base: await scored(base), post: await scored(post), cpt: await scored(plain.cpt) }
  return { plain, given }
}

describe('allow', () => {
  it('leaves tensors out of all checkpoints, says why, and verifies', async () => {
    const { plain, given } = await trio()
    const { base, post, cpt } = given
    expect(new Set(graftProblems(cpt, { base, post }).map(({ code }) => code))).toEqual(
      new Set(['unexpected-tensor']),
    )
    const output = await store(pipe(cpt, graft({ base, post, allow })))
    expect(await contentOf(output)).toEqual(await contentOf(pipe(plain.cpt, graft(plain))))
    expect(output.provenance.skipped).toEqual(
      ['cpt', 'base', 'post'].map((role) => ({
        tensor: 'score.weight',
        reason: `a head for ranking (${role})`,
      })),
    )
    const { checks } = await verify(output, given)
    expect(checks.filter(({ ok }) => !ok)).toEqual([])
  })

  it('does not make up for tensors that are needed', async () => {
    const { base, post, cpt } = (await trio()).plain
    const rules = [{ tensors: 'o_proj', reason: 'a slip' }]
    const codes = graftProblems(cpt, { base, post, allow: rules }).map(({ code }) => code)
    expect(new Set(codes)).toEqual(new Set(['missing-tensor']))
  })

  it.each([
    ['upcycling', (step: JsonObject) => [{ ...step, allow }]],
    ['a recipe', (step: JsonObject) => [{ op: 'recipe', recipe: { allow } }, step]],
  ])('verification of a mixture knows what %s left out', async (_, recipeOf) => {
    const { plain, given } = await trio()
    const [step] = plain.cpt.provenance.recipe
    const recorded = { ...plain.cpt, provenance: { recipe: recipeOf(step!), skipped: [] } }
    expect((await verifyUpcycle(recorded, given)).ok).toBe(true)
    expect((await verifyUpcycle(plain.cpt, given)).ok).toBe(false)
  })
})
