import type { Checkpoint } from '@polygraft/tensor'

/** What stands for prompts: the mean embedding of their tokens; or the mean of what enters each layer, for their last tokens or on average over the tokens of each. */
export type PromptState = 'embedding' | 'last' | 'average'

/**
 * Reads prompts with a model: for each group of prompts what stands for it, [H] for each layer; for 'embedding' one for all layers. The app gives it, since it
 * takes a model that runs.
 */
export type ReadPrompts = (
  model: Checkpoint,
  groups: readonly (readonly string[])[],
  state: PromptState,
) => Promise<readonly (readonly Float32Array[])[]>
