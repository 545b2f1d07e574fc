import { readFileSync } from 'node:fs'
import { formatClaims } from './claims.js'
import type { Scores } from './evaluate.js'
import { plotInstructions } from './plot.js'
import type { Part } from './rows.js'
import { formatMean } from './statistics.js'
import type { Row } from './table.js'
import { TASKS } from './world.js'

export interface Table {
  readonly part: Part
  readonly rows: readonly Row[]
}

export interface Facts {
  readonly command: string
  /** Of the report, and of the trainings. */
  readonly commit: string
  readonly trainedWith: readonly string[]
  readonly scale: number
  /** Of each seed's trainings. */
  readonly cpuSeconds: ReadonlyMap<number, number>
}

const PLOTS = 'paper'
/** What a reader made of the figures of seeds 0 to 2; to be read again when they change. */
const READING = new URL('./reading.md', import.meta.url)

/** Files of the report by path. */
export function formatReport(tables: readonly Table[], facts: Facts): Map<string, string> {
  const rowsOf = (name: string) => tables.find(({ part }) => part.name === name)?.rows ?? []
  const plots = plotsOf(rowsOf)
  const pictures = [...plots.keys()].map((path) => `![${path}](${path})`)
  const sections = tables.filter(({ rows }) => rows.length > 0).map(formatTable)
  const page = [
    introduction(facts),
    ...(facts.scale === 1 ? [readFileSync(READING, 'utf8')] : []),
    '## The claims, seed by seed\n',
    `Points of instructions answered exactly. "Higher" and "lower" are beyond two standard errors of the differences between models of the same seed; with so few seeds that is a weak test.\n`,
    formatClaims([
      ...rowsOf('main'),
      ...rowsOf('matched').filter(({ title }) => !title.includes('DeltaMoE')),
    ]),
    ...(pictures.length > 0 ? [`${pictures.join('\n\n')}\n`] : []),
    ...sections,
    '## Task by task\n',
    'Share answered exactly, O / N, in percent. `repeat`, `reverse`: the operator is a word of the language; `same`, `flip`, `json`: one that all share; `fact`: of people whom no training instruction asks about.\n',
    formatTasks(rowsOf('main')),
  ]
  return new Map([['paper.md', page.join('\n')], ...plots])
}

function introduction({ command, commit, trainedWith, scale, cpuSeconds }: Facts): string {
  const short =
    scale < 1
      ? `\nShortened: every training has ${scale} of its steps, so these figures show that the road runs and nothing else.\n`
      : ''
  const costs = [...cpuSeconds].map(([seed, seconds]) => `seed ${seed} ${Math.round(seconds)}`).join(', ')
  return `# The experiment in miniature

DeltaMoE (arXiv 2605.18083) on a world of 48 facts, two original languages (O) and two new ones (N), and models of 0.23 M parameters that are trained from nothing: see \`tools/paper\`.
\`${command}\` at ${commit} wrote this page; the models were trained with the packages of ${trainedWith.join(', ')}. CPU seconds of the trainings that noted them: ${costs}.

Perplexity of raw text ("ppl"), and instructions answered exactly ("instr"), on held-out text and items; means over seeds ± standard error. One architecture, one size, one kind of
post-training: that the method works for several base models and several deltas is not looked into here.
${short}`
}

function plotsOf(rowsOf: (name: string) => readonly Row[]): Map<string, string> {
  const instructed = rowsOf('main').filter(({ scores }) =>
    scores.some((each) => each.originalInstructions > 0.01),
  )
  const by = (name: string) => rowsOf('frontier').filter(({ stage }) => stage.startsWith(name))
  const all = [
    [
      'main',
      'Main rows',
      [
        {
          name: 'DeltaMoE',
          rows: instructed.filter(({ stage }) => stage.startsWith('delta-moe')),
          isLine: false,
        },
        {
          name: 'others',
          rows: instructed.filter(({ stage }) => !stage.startsWith('delta-moe')),
          isLine: false,
        },
      ],
    ],
    [
      'frontier',
      'Strength of continued pre-training',
      [
        { name: 'DeltaMoE', rows: by('delta-moe'), isLine: true },
        { name: 'ParamΔ', rows: by('param-delta'), isLine: true },
      ],
    ],
  ] as const
  return new Map(
    all
      .filter(([, , series]) => series.some(({ rows }) => rows.length > 0))
      .map(([name, title, series]) => [`${PLOTS}/${name}.svg`, plotInstructions(title, series)]),
  )
}

function formatTable({ part, rows }: Table): string {
  const lines = rows.map(({ title, stage, isChosen, seeds, scores }) => {
    const cell = (key: keyof Omit<Scores, 'tasks'>, by: number, digits: number) =>
      formatMean(
        scores.map((each) => each[key] * by),
        digits,
      )
    const perplexities = [cell('originalPerplexity', 1, 2), cell('newPerplexity', 1, 2)]
    const name = isChosen ? `${title} (\`${stage}\`)` : title
    return `| ${[name, ...perplexities, cell('originalInstructions', 100, 1), cell('newInstructions', 100, 1), seeds.join(', ')].join(' | ')} |`
  })
  return `## ${part.title}

${part.about}

| method | O ppl | N ppl | O instr % | N instr % | seeds |
|---|---|---|---|---|---|
${lines.join('\n')}
`
}

/** The shares of each task, O / N. */
function formatTasks(rows: readonly Row[]): string {
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
