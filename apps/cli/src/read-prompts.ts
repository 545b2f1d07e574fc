import { dimensionsOf, familyOf } from '@polygraft/architectures'
import type { PromptState, ReadPrompts } from '@polygraft/recipe'
import type { Checkpoint } from '@polygraft/tensor'

/**
 * Reads prompts with a model in this process. A dry run tokenizes them, so that what is wrong with the tokenizer is seen, and makes up what
 * the model would give.
 */
export function promptReader(dryRun: boolean, threads: number | undefined, signal: AbortSignal): ReadPrompts {
  return async (checkpoint, groups, state) => {
    // The decoder takes a while to load, which other recipes need not wait for.
    const { openTokenizer } = await import('@polygraft/model')
    const tokenizer = await openTokenizer(checkpoint)
    const prompts = groups.map((group) => group.map((prompt) => tokenizer.encodePrompt(prompt)))
    return dryRun ? madeUp(checkpoint, groups.length) : read(checkpoint, prompts, state, threads, signal)
  }
}

async function read(
  checkpoint: Checkpoint,
  groups: readonly (readonly (readonly number[])[])[],
  state: PromptState,
  threads: number | undefined,
  signal: AbortSignal,
): Promise<Float32Array[][]> {
  const { measurePromptEmbedding, measurePromptStates } = await import('@polygraft/model')
  const results: Float32Array[][] = []
  if (state === 'embedding') {
    for (const group of groups) results.push([await measurePromptEmbedding(checkpoint, group)])
    return results
  }
  const { startModel } = await import('./model.js')
  const { model, close } = await startModel(checkpoint, threads)
  try {
    for (const group of groups) results.push(await measurePromptStates(model, group, state, signal))
    return results
  } finally {
    await close()
  }
}

/** Of each group another direction. */
function madeUp({ config }: Checkpoint, groups: number): Float32Array[][] {
  const { numLayers, hiddenSize } = dimensionsOf(familyOf(config), config)
  return Array.from({ length: groups }, (_, group) => {
    const state = Float32Array.from({ length: hiddenSize }, (_, h) => Number(h === group % hiddenSize))
    return Array.from({ length: numLayers }, () => state)
  })
}
