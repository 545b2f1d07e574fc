import type { Scores } from './evaluate.js'
import type { Part } from './rows.js'
import type { Row } from './table.js'
import { TASKS } from './world.js'

export interface Table {
  readonly part: Part
  readonly rows: readonly Row[]
}

export interface Facts {
  readonly command: string
  readonly commit: string
  readonly seeds: readonly number[]
  readonly scale: number
}

/** Files of the report by name. */
export function formatReport(tables: readonly Table[], facts: Facts): Map<string, string> {
  const { command, commit, scale } = facts
  const short =
    scale < 1
      ? `\nShortened: every training has ${scale} of its steps, so these figures show that the road runs and nothing else.\n`
      : ''
  const page = `# The experiment in miniature

\`${command}\` at ${commit}. O: the two original languages, N: the two new ones.
${short}
${tables.map(formatTable).join('\n')}`
  return new Map([['paper.md', page]])
}

function formatTable({ part, rows }: Table): string {
  const lines = rows.map(({ title, stage, isChosen, seeds, scores }) => {
    const cell = (key: keyof Omit<Scores, 'tasks'>, by: number, digits: number) =>
      meanAndError(
        scores.map((each) => each[key] * by),
        digits,
      )
    const perplexities = [cell('originalPerplexity', 1, 2), cell('newPerplexity', 1, 2)]
    const name = isChosen ? `${title} (${stage})` : title
    return `| ${[name, ...perplexities, cell('originalInstructions', 100, 1), cell('newInstructions', 100, 1), seeds.join(', ')].join(' | ')} |`
  })
  return `## ${part.title}

${part.about}

| method | O ppl | N ppl | O instr % | N instr % | seeds |
|---|---|---|---|---|---|
${lines.join('\n')}
`
}

/** The shares of each task, [O / N]. */
export function formatTasks(rows: readonly Row[]): string {
  const lines = rows.map(({ title, scores }) => {
    const share = (task: (typeof TASKS)[number], l: 0 | 1) =>
      ((100 * scores.reduce((sum, each) => sum + each.tasks[task][l], 0)) / scores.length).toFixed(0)
    return `| ${[title, ...TASKS.map((task) => `${share(task, 0)} / ${share(task, 1)}`)].join(' | ')} |`
  })
  return `| method | ${TASKS.join(' | ')} |
|---|${TASKS.map(() => '---|').join('')}
${lines.join('\n')}
`
}

function meanAndError(values: readonly number[], digits: number): string {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0)
  const error = Math.sqrt(squares / Math.max(1, values.length - 1) / values.length)
  return values.length > 1 ? `${mean.toFixed(digits)} ± ${error.toFixed(digits)}` : mean.toFixed(digits)
}
