import type { Problem } from '@polygraft/tensor'
import { meant } from './_issues.js'
import { formatReference, type ModelReference, parseReference, type WrittenReference } from './_references.js'
import { STEP_NAME } from './_step-name.js'
import type { Path, YamlText } from './_yaml.js'

/** Takes down what a recipe refers to, and what is wrong with it, while it is read. */
export interface Reader {
  /** By the text that stands for them in a plan. */
  readonly models: ReadonlyMap<string, ModelReference>
  /** Where each was first written. */
  readonly places: ReadonlyMap<string, Path>
  readonly problems: readonly Problem[]
  report(code: string, message: string, path: Path, more?: Partial<Problem>): void
  /** The text that stands for a model. */
  model(written: WrittenReference, path: Path): string
}

/** @param steps The names that references may have besides; then a word alone is such a name, and a path is more than that. */
export function readerOf(yaml: YamlText, steps?: ReadonlySet<string>): Reader {
  const problems: Problem[] = []
  const models = new Map<string, ModelReference>()
  const places = new Map<string, Path>()
  const report: Reader['report'] = (code, message, path, more = {}) => {
    problems.push({ code, message, ...yaml.place(path, 'key'), ...more })
  }
  return {
    models,
    places,
    problems,
    report,
    model(written, path) {
      if (steps && typeof written === 'string' && STEP_NAME.test(written)) {
        if (!steps.has(written)) problems.push(unknownStep(written, steps, yaml.place(path)))
        return written
      }
      const reference = parseReference(written)
      if (!reference) {
        const expected = 'path, path@revision or model+lora'
        report('bad-value', 'This names no model', path, { expected, received: JSON.stringify(written) })
        return JSON.stringify(written)
      }
      if (typeof written === 'object' && 'override_architecture' in written && written.override_architecture)
        report('not-supported', 'override_architecture is not supported', [...path, 'override_architecture'])
      const key = formatReference(reference)
      models.set(key, reference)
      if (!places.has(key)) places.set(key, path)
      return key
    },
  }
}

function unknownStep(name: string, steps: ReadonlySet<string>, place: Partial<Problem>): Problem {
  return {
    code: 'unknown-step',
    message: `There is no step ${name}`,
    ...place,
    expected: [...steps].join(', '),
    received: name,
    next: `Write ./${name} if a folder is meant.`,
    ...meant(name, [...steps]),
  }
}
