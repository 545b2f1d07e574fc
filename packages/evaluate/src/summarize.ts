import type { LanguageClassifier } from './language-classifier.js'
import type { ItemResult } from './measure-tasks.js'
import { type Accuracy, accuracyOf, groupBy } from './scores.js'

/** Accuracy by task; multiple choice gets a second line, `<task> (per byte)`, with likelihoods per byte. */
export function summarizeTasks(results: readonly ItemResult[]): Record<string, Accuracy> {
  const groups = [...groupBy(results, ({ item }) => item.task)]
  return Object.fromEntries(
    groups.flatMap(([task, group]) => {
      const normalized = group.flatMap(({ normalizedScore }) => normalizedScore ?? [])
      return [
        [task, accuracyOf(group.map(({ score }) => score))],
        ...(normalized.length > 0 ? [[`${task} (per byte)`, accuracyOf(normalized)]] : []),
      ]
    }),
  )
}

/** Accuracy by language of the items that name one. */
export function summarizeLanguages(results: readonly ItemResult[]): Record<string, Accuracy> {
  const named = results.filter(({ item }) => item.language !== undefined)
  const groups = [...groupBy(named, ({ item }) => item.language!)]
  return Object.fromEntries(
    groups.map(([name, group]) => [name, accuracyOf(group.map(({ score }) => score))]),
  )
}

/**
 * Language fidelity: the share of generated answers that are in the language of their question, by that language. Of items that name a
 * language that the classifier knows; an answer without a word of any language counts as not in it.
 */
export function languageFidelity(
  results: readonly ItemResult[],
  { languages, classify }: LanguageClassifier,
): Record<string, Accuracy> {
  const asked = results.filter(
    ({ item }) =>
      item.kind === 'exact-match' && item.language !== undefined && languages.includes(item.language),
  )
  const groups = [...groupBy(asked, ({ item }) => item.language!)]
  return Object.fromEntries(
    groups.map(([language, group]) => [
      language,
      accuracyOf(group.map(({ answer }) => (classify(answer) === language ? 1 : 0))),
    ]),
  )
}
