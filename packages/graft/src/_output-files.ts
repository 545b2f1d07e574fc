import { isTemplateFile, isTokenizerFile, type Vocabulary } from '@polygraft/delta'
import type { ByteSource, Checkpoint } from '@polygraft/tensor'

type Files = ReadonlyMap<string, ByteSource>

const GENERATION = 'generation_config.json'

/**
 * The output's files beside weights and config: post's tokenizer, chat template and generation config, and all else of
 * cpt (licence, model card, ...). Where cpt has tokens of its own its tokenizer is carried, and post's chat template
 * beside it, which takes precedence over one in `tokenizer_config.json`. What post does not have is kept from cpt.
 */
export function outputFiles(
  cpt: Files,
  post: Checkpoint,
  tokenizer: 'post' | 'cpt',
  vocabulary?: Vocabulary,
): Files {
  const templates = templatesOf(post.files, vocabulary)
  const fromPost = tokenizer === 'post' && select(post.files, isTokenizerFile).size > 0
  const dropped = (name: string) =>
    (isTokenizerFile(name) && fromPost) ||
    (isTemplateFile(name) && (fromPost || templates.size > 0)) ||
    (name === GENERATION && post.files.has(GENERATION))
  return new Map([
    ...select(cpt, (name) => !dropped(name)),
    ...select(post.files, (name) => name === GENERATION || (isTokenizerFile(name) && fromPost)),
    ...(fromPost ? select(post.files, isTemplateFile) : templates),
  ])
}

/** post's chat templates as files, whichever way it stores them. */
function templatesOf(files: Files, vocabulary: Vocabulary | undefined): Files {
  const stored = select(files, isTemplateFile)
  if (stored.size > 0) return stored
  // The names become file names: what could be a path is none.
  const embedded = [...(vocabulary?.chatTemplates ?? [])].filter(([name]) => /^\w[\w.-]*$/.test(name))
  return new Map(
    embedded.map(([name, text]) => [
      name === 'default' ? 'chat_template.jinja' : `additional_chat_templates/${name}.jinja`,
      new Blob([text]),
    ]),
  )
}

function select(files: Files, wanted: (name: string) => boolean): Files {
  return new Map([...files].filter(([name]) => wanted(name)))
}
