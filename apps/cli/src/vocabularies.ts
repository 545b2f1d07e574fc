import { readVocabulary, type Vocabulary } from '@polygraft/delta'
import type { Checkpoint } from '@polygraft/tensor'

type Role = 'cpt' | 'base' | 'post' | 'delta'

/** The tokenizers' vocabularies of the checkpoints of a graft or a delta; a role without one is left out. */
export async function readVocabularies(
  checkpoints: { readonly [R in Role]?: Checkpoint } & Record<string, unknown>,
): Promise<{ readonly [R in Role]?: Vocabulary }> {
  const roles = (['cpt', 'base', 'post', 'delta'] as const).filter((role) => checkpoints[role])
  const read = await Promise.all(
    roles.map(async (role) => [role, await readVocabulary(checkpoints[role]!)] as const),
  )
  return Object.fromEntries(read.filter(([, vocabulary]) => vocabulary))
}
