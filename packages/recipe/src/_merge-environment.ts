import type { Checkpoint } from '@polygraft/tensor'
import type { YamlText } from './_yaml.js'
import type { Measuring } from './measuring.js'
import type { ReadPrompts } from './prompts.js'

/** What a merge is built with. */
export interface MergeEnvironment {
  /** By the names that the plan has for them. */
  readonly models: ReadonlyMap<string, Checkpoint>
  readonly measuring: Measuring
  readonly prompts?: ReadPrompts
  /** Go on although families and configs differ. */
  readonly force: boolean
  readonly yaml: YamlText
}
