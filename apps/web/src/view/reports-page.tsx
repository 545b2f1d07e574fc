import type { Evaluation } from '@polygraft/evaluate'
import { ModelError, type Problem } from '@polygraft/tensor'
import { signal } from '@preact/signals'
import { text } from '../state/settings.js'
import { number, share } from './format.js'
import { parseReport, type Report, type TrainStep } from './parse-report.js'
import { Problems } from './parts.js'
import { Scroll } from './scroll.js'

// Outlive a visit to another page.
const reports = signal<readonly (Report & { name: string })[]>([])
const problems = signal<readonly Problem[]>([])

/** What `polygraft eval` and `polygraft train` wrote. */
export function ReportsPage() {
  return (
    <>
      <h1>{text.value.reports}</h1>
      <p>{text.value.reportsText}</p>
      <label class="field">
        <span>{text.value.reportFiles}</span>
        <input
          type="file"
          multiple
          accept=".json,.jsonl"
          onChange={(event) => open([...(event.currentTarget.files ?? [])])}
        />
      </label>
      <Problems problems={problems.value} />
      {reports.value.map((report, i) => (
        <section class="card" key={`${report.name} ${i}`}>
          <h2>{report.name}</h2>
          {report.kind === 'eval' ? (
            <Evaluations evaluations={report.evaluations} />
          ) : (
            <Curves steps={report.steps} />
          )}
        </section>
      ))}
    </>
  )
}

async function open(files: readonly File[]): Promise<void> {
  problems.value = []
  for (const file of files)
    try {
      reports.value = [{ ...parseReport(await file.text(), file.name), name: file.name }, ...reports.value]
    } catch (error) {
      if (!(error instanceof ModelError)) throw error
      problems.value = [...problems.value, ...error.problems]
    }
}

function Evaluations({ evaluations }: { evaluations: readonly Evaluation[] }) {
  const rows = (pick: (evaluation: Evaluation) => object) => [
    ...new Set(evaluations.flatMap((each) => Object.keys(pick(each)))),
  ]
  return (
    <Scroll label={text.value.reports} name="scores">
      <table>
        <thead>
          <tr>
            <th scope="col">{text.value.measure}</th>
            {evaluations.map(({ checkpoint }) => (
              <th scope="col" key={checkpoint}>
                {checkpoint}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows(({ languages }) => languages).map((language) => (
            <tr key={language}>
              <th scope="row">{text.value.perplexityOf(language)}</th>
              {evaluations.map(({ checkpoint, languages }) => (
                <td key={checkpoint}>{languages[language] && number(languages[language].perplexity)}</td>
              ))}
            </tr>
          ))}
          {rows(({ tasks }) => tasks).map((task) => (
            <tr key={task}>
              <th scope="row">{task}</th>
              {evaluations.map(({ checkpoint, tasks }) => (
                <td key={checkpoint}>
                  {tasks[task] && `${share(tasks[task].accuracy)} ± ${share(tasks[task].stderr)}`}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  )
}

function Curves({ steps }: { steps: readonly TrainStep[] }) {
  return (
    <div class="columns">
      <Curve label={text.value.loss} steps={steps} of={({ loss }) => loss} />
      <Curve label={text.value.gradientNorm} steps={steps} of={({ gradientNorm }) => gradientNorm} />
      <Curve label={text.value.rate} steps={steps} of={({ rate }) => rate} />
    </div>
  )
}

const [WIDTH, HEIGHT] = [300, 100]

function Curve(props: { label: string; steps: readonly TrainStep[]; of: (step: TrainStep) => number }) {
  const { label, steps, of } = props
  const values = steps.map(of)
  const least = values.reduce((a, b) => Math.min(a, b))
  const most = values.reduce((a, b) => Math.max(a, b))
  const [first, last] = [steps[0]!.step, steps.at(-1)!.step]
  const points = steps.map((step) => {
    const x = ((step.step - first) / (last - first || 1)) * WIDTH
    return `${x},${HEIGHT - ((of(step) - least) / (most - least || 1)) * HEIGHT}`
  })
  const described = text.value.curve(label, number(values[0]!), number(values.at(-1)!), number(last))
  return (
    <figure>
      <figcaption>{described}</figcaption>
      <svg class="curve" viewBox={`0 -4 ${WIDTH} ${HEIGHT + 8}`} role="img" aria-label={described}>
        <polyline points={points.join(' ')} />
      </svg>
      <div class="axis">
        <span>
          {number(least)} … {number(most)}
        </span>
        <span>
          {number(first)} … {number(last)}
        </span>
      </div>
    </figure>
  )
}
