import { familyOf, nameOf } from '@polygraft/architectures'
import { openModel } from '@polygraft/model'
import { addRouterSamples, createRouterSamples, languageRouter } from '@polygraft/routing'
import { type Checkpoint, literal } from '@polygraft/tensor'
import { createDraws } from './random.js'
import type { StageContext } from './stage.js'
import { expertOf, type Letter, NEW, ORIGINAL } from './world.js'

const DOCUMENTS = 32

/** A mixture whose routers send each language to its expert from the start, by the means of what they read in text of the base. */
export async function startByLanguage(
  moe: Checkpoint,
  base: Checkpoint,
  context: StageContext,
): Promise<Checkpoint> {
  const family = familyOf(moe.config)
  const tensors = new Map(moe.tensors)
  for (const [layer, router] of (await routersOf(base, context)).entries()) {
    const name = nameOf(family, { group: 'router', layer })!
    tensors.set(name, { ...tensors.get(name)!, expr: literal(router) })
  }
  return { ...moe, tensors }
}

async function routersOf(base: Checkpoint, { world, seed }: StageContext): Promise<Float32Array[]> {
  const model = await openModel(base)
  const { numLayers, hiddenSize } = model.dimensions
  const samples = Array.from({ length: numLayers }, () =>
    createRouterSamples(1 + NEW.length, hiddenSize, false),
  )
  const visit = async (letter: Letter, tokens: readonly number[]) => {
    const cache = model.createCache(tokens.length)
    await model.forward([{ cache, begin: 0, tokens, wanted: 'none' }], {
      feedForwardInput: (layer, rows) => addRouterSamples(samples[layer]!, expertOf(letter), rows),
    })
    model.backend.freeCache(cache)
  }
  try {
    for (const letter of [...ORIGINAL, ...NEW]) {
      const draws = createDraws(seed, `router start ${letter}`)
      for (let i = 0; i < DOCUMENTS; i++) await visit(letter, world.document(letter, draws))
    }
    return samples.map((each) => languageRouter(each, { kind: 'means' }))
  } finally {
    await model.close()
  }
}
