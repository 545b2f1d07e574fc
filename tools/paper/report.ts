import type { Scores } from './evaluate.js'

/** Scores of one stage under each seed. */
export interface Row {
  readonly title: string
  readonly scores: readonly Scores[]
}

/** The table of the experiment, means over seeds with their standard errors. */
export function formatReport(
  rows: readonly Row[],
  facts: {
    readonly command: string
    readonly commit: string
    readonly seeds: readonly number[]
    readonly scale: number
    readonly split: string
  },
): string {
  const lines = rows.map(({ title, scores }) => {
    const cell = (key: keyof Scores, by: number, digits: number) =>
      meanAndError(
        scores.map((each) => each[key] * by),
        digits,
      )
    const perplexities = [cell('originalPerplexity', 1, 2), cell('newPerplexity', 1, 2)]
    return `| ${[title, ...perplexities, cell('originalInstructions', 100, 1), cell('newInstructions', 100, 1)].join(' | ')} |`
  })
  const short =
    facts.scale < 1
      ? `\nShortened: every training has ${facts.scale} of its steps, so these figures show that the road runs and nothing else.\n`
      : ''
  return `# The experiment in miniature

\`${facts.command}\` at ${facts.commit}: seeds ${facts.seeds.join(', ')}, split "${facts.split}". O: the two original languages, N: the two new ones. Means over seeds ± standard error.
${short}
| method | O ppl | N ppl | O instr % | N instr % |
|---|---|---|---|---|
${lines.join('\n')}
`
}

function meanAndError(values: readonly number[], digits: number): string {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  const error = Math.sqrt(squares / Math.max(1, values.length - 1) / values.length)
  return values.length > 1 ? `${mean.toFixed(digits)} ± ${error.toFixed(digits)}` : mean.toFixed(digits)
}
