import { DTYPES } from './_mergekit-schema.js'
import type { WrittenStep } from './_pipeline-schema.js'
import { readSlices } from './_read-slices.js'
import { readTokenizer } from './_read-tokenizer.js'
import type { Reader } from './_reader.js'
import type { Path } from './_yaml.js'
import type { MergePlan } from './merge-plan.js'

/** A merge step as a plan. */
export function readMerge(
  step: Extract<WrittenStep, { op: 'merge' }>,
  path: Path,
  reader: Reader,
): MergePlan {
  const given = (['models', 'slices'] as const).filter((key) => step[key] !== undefined)
  if (given.length !== 1)
    reader.report('bad-recipe', 'A merge has exactly one of models and slices', path, {
      received: given.join(', ') || 'none of them',
    })
  const { base_model: written, dtype, chat_template: chatTemplate, conventions = 'paper' } = step
  const base = written === undefined ? undefined : reader.model(written, [...path, 'base_model'])
  const tokenizer = readTokenizer({ tokenizer: step.tokenizer }, path, reader)
  return {
    method: step.merge_method,
    slices: readSlices(step, path, reader),
    ...(base === undefined ? {} : { base }),
    parameters: [step.parameters ?? {}],
    parameterPaths: [[...path, 'parameters']],
    ...(dtype ? { dtype: DTYPES[dtype] } : {}),
    ...(tokenizer ? { tokenizer } : {}),
    ...(chatTemplate ? { chatTemplate } : {}),
    outside: conventions === 'mergekit' ? 'start' : 'ends',
    conventions,
    path: [...path, 'merge_method'],
  }
}
