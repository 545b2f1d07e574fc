import { type Figure, type ReportData, reportFigures } from './report.js'

/**
 * One HTML page that holds everything, figures as SVG: no script, nothing fetched. For light and dark.
 * Vega-Lite draws the figures; it is loaded on the first call.
 */
export async function formatReport(data: ReportData): Promise<string> {
  const figures = await Promise.all(reportFigures(data).map(drawFigure))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(data.title)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(data.title)}</h1>
${tables(data)}
${figures.join('\n')}
</main>
</body>
</html>
`
}

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; overflow-x: auto; }
figure svg { background: #fff; border-radius: .5rem; max-width: 100%; height: auto; }
figcaption { font-weight: 600; }
`

async function drawFigure({ title, spec }: Figure): Promise<string> {
  return `<figure>\n<figcaption>${escapeHtml(title)}</figcaption>\n${await drawSvg(spec)}\n</figure>`
}

/** A Vega-Lite specification as SVG text. */
export async function drawSvg(spec: object): Promise<string> {
  const [vega, { compile }] = await Promise.all([import('vega'), import('vega-lite')])
  const compiled = compile(spec as Parameters<typeof compile>[0])
  const view = new vega.View(vega.parse(compiled.spec), { renderer: 'none' })
  try {
    return await view.toSVG()
  } finally {
    view.finalize()
  }
}

/** One table for each kind of score: a row for each checkpoint, a column for each language or task. */
function tables({ evaluations }: ReportData): string {
  const share = (value: number) => (Number.isNaN(value) ? 'none' : `${(value * 100).toFixed(1)} %`)
  return [
    table('Perplexity', evaluations, ({ languages }) =>
      Object.entries(languages).map(([name, { perplexity }]) => [name, perplexity.toFixed(3)]),
    ),
    table('Accuracy', evaluations, ({ tasks }) =>
      Object.entries(tasks).map(([name, { accuracy, stderr, n }]) => [
        name,
        `${share(accuracy)} ± ${(stderr * 100).toFixed(1)} (${n})`,
      ]),
    ),
    table('Answers in the language of the question', evaluations, ({ fidelity = {} }) =>
      Object.entries(fidelity).map(([name, { accuracy, n }]) => [name, `${share(accuracy)} (${n})`]),
    ),
  ].join('\n')
}

type Rows = ReportData['evaluations']

function table(title: string, rows: Rows, cellsOf: (row: Rows[number]) => string[][]): string {
  const cells = rows.map((row) => new Map(cellsOf(row).map(([name, text]) => [name!, text!])))
  const columns = [...new Set(cells.flatMap((row) => [...row.keys()]))]
  if (columns.length === 0) return ''
  const head = ['checkpoint', ...columns].map((name) => `<th scope="col">${escapeHtml(name)}</th>`).join('')
  const body = rows.map(({ checkpoint }, i) => {
    const values = columns.map((name) => `<td>${escapeHtml(cells[i]!.get(name) ?? '–')}</td>`).join('')
    return `<tr><td>${escapeHtml(checkpoint)}</td>${values}</tr>`
  })
  return `<h2>${escapeHtml(title)}</h2>\n<table>\n<tr>${head}</tr>\n${body.join('\n')}\n</table>`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!)
}
