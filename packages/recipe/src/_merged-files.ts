import { isTemplateFile, isTokenizerFile, readVocabulary } from '@polygraft/delta'
import {
  type ByteSource,
  type Checkpoint,
  type JsonObject,
  ModelError,
  type Problem,
} from '@polygraft/tensor'
import { isJsonObject, parseJson, readText } from '@polygraft/tensor-io'
import { jsonFile, type OutputVocabulary } from './_output-vocabulary.js'
import { CHAT_TEMPLATES } from './chat-templates.js'
import type { MergePlan } from './merge-plan.js'

type Files = ReadonlyMap<string, ByteSource>

const GENERATION = 'generation_config.json'
const CONFIG = 'tokenizer_config.json'

/** The files beside weights and config: the target's, with the merged vocabulary's tokenizer and the chat template asked for. */
export async function mergedFiles(
  plan: MergePlan,
  target: Checkpoint,
  models: readonly Checkpoint[],
  vocabulary: OutputVocabulary | undefined,
): Promise<{ files: Files; warnings: readonly Problem[] }> {
  const own = [...target.files].filter(([name]) => !isTokenizerFile(name) && !isTemplateFile(name))
  const generation = vocabulary?.donor.files.get(GENERATION)
  const files = vocabulary
    ? new Map([...own, ...vocabulary.files, ...(generation ? [[GENERATION, generation] as const] : [])])
    : target.files
  if (plan.chatTemplate === undefined) return { files, warnings: [] }
  const template = await templateOf(plan.chatTemplate, models)
  if (template === undefined) return { files, warnings: [NO_TEMPLATE] }
  return { files: await withTemplate(files, template), warnings: [] }
}

const NO_TEMPLATE: Problem = {
  code: 'no-chat-template',
  message: 'chat_template is auto, and none of the models has a chat template',
}

/** Jinja text, or the name of a known template, or `auto`: the one that most of the models have, of equally many the first. */
async function templateOf(wanted: string, models: readonly Checkpoint[]): Promise<string | undefined> {
  if (wanted === 'auto') return mostCommon(await Promise.all(models.map(ownTemplate)))
  if (Object.hasOwn(CHAT_TEMPLATES, wanted)) return CHAT_TEMPLATES[wanted]
  if (wanted.includes('{')) return wanted
  throw new ModelError({
    code: 'bad-value',
    message: 'chat_template is neither a known name nor a template',
    expected: `auto, ${Object.keys(CHAT_TEMPLATES).join(', ')}, or Jinja text`,
    received: wanted,
  })
}

async function ownTemplate(model: Checkpoint): Promise<string | undefined> {
  const file = model.files.get('chat_template.jinja')
  if (file) return readText(file, 'chat_template.jinja')
  return (await readVocabulary(model))?.chatTemplates.get('default')
}

function mostCommon(templates: readonly (string | undefined)[]): string | undefined {
  const counts = new Map<string, number>()
  for (const template of templates) {
    const text = template?.trim()
    if (text) counts.set(text, (counts.get(text) ?? 0) + 1)
  }
  const most = Math.max(0, ...counts.values())
  return [...counts].find(([, count]) => count === most)?.[0]
}

/** The template as a file of its own, which takes precedence, and out of the tokenizer's config, where older programs look. */
async function withTemplate(files: Files, template: string): Promise<Files> {
  const result = new Map([...files].filter(([name]) => !isTemplateFile(name)))
  result.set('chat_template.jinja', new Blob([template]))
  const config = files.get(CONFIG)
  const parsed = config && parseJson(await readText(config, CONFIG), CONFIG)
  if (isJsonObject(parsed ?? null))
    result.set(CONFIG, jsonFile({ ...(parsed as JsonObject), chat_template: template }))
  return result
}
