import { type Checkpoint, ModelError } from '@polygraft/tensor'
import type { Recipe } from './api.js'
import { build } from './build.js'
import type { Part } from './chat-api.js'

const TEMPLATE_FILES = ['chat_template.jinja', 'tokenizer_config.json']

/**
 * One of a recipe's checkpoints. What the delta goes onto has no chat template as a rule, and is asked by the post-trained one's.
 * @throws ModelError with the problems of the recipe.
 */
export async function chatCheckpoint(
  recipe: Recipe,
  part: Part,
  find: (key: string) => Checkpoint,
): Promise<Checkpoint> {
  const post = recipe.post === undefined ? undefined : find(recipe.post)
  if (part === 'post' && post) return post
  const { post: _, ...start } = recipe
  const { checkpoint, problems } = await build(part === 'start' ? start : recipe, find)
  if (!checkpoint) throw new ModelError(problems)
  return post ? withTemplate(checkpoint, post) : checkpoint
}

function withTemplate(checkpoint: Checkpoint, post: Checkpoint): Checkpoint {
  const [own] = TEMPLATE_FILES
  if (checkpoint.files.has(own!)) return checkpoint
  const borrowed = TEMPLATE_FILES.find((file) => post.files.has(file))
  if (borrowed === undefined) return checkpoint
  return { ...checkpoint, files: new Map([...checkpoint.files, [borrowed, post.files.get(borrowed)!]]) }
}
