import type { Accuracy } from './scores.js'

/** Of text in one language. */
export interface LanguageScore {
  /** exp of the mean negative log likelihood of a token. */
  readonly perplexity: number
  /** Tokens that were scored: all but the first of each document. */
  readonly tokens: number
}

/** What was measured of one checkpoint. Everything is plain data, as `--json` prints it. */
export interface Evaluation {
  /** What the report calls it. */
  readonly checkpoint: string
  readonly languages: Readonly<Record<string, LanguageScore>>
  readonly tasks: Readonly<Record<string, Accuracy>>
  /** Share of generated answers that are in the language of the question, by language. */
  readonly fidelity?: Readonly<Record<string, Accuracy>>
}

/** Tokens' experts of one language, layer by layer: share of the choices, [layer][expert]; nothing for a dense layer. */
export interface RoutingShare {
  readonly language: string
  readonly layers: readonly (readonly number[])[]
}

/** Relative norm of a delta in one layer: |Delta| / |base|. */
export interface DeltaNorm {
  readonly group: string
  readonly layer: number
  readonly relativeNorm: number
}

/** What a report shows: checkpoints beside one another, and what else there is. */
export interface ReportData {
  readonly title: string
  readonly evaluations: readonly Evaluation[]
  /** Labels of the experts, expert 0 first. */
  readonly experts?: readonly string[]
  readonly routing?: readonly RoutingShare[]
  readonly deltas?: readonly DeltaNorm[]
}

/** A figure as a Vega-Lite specification (vega.github.io/vega-lite), with its data inside. */
export interface Figure {
  readonly title: string
  readonly spec: object
}

/** The figures that the data allow: scores, routing heat map, delta norms by layer. */
export function reportFigures(data: ReportData): Figure[] {
  return [perplexityFigure(data), taskFigure(data), routingFigure(data), deltaFigure(data)].filter(
    (figure) => figure !== undefined,
  )
}

/** Names whole: they are paths, which differ at their ends. */
const CHECKPOINT_COLOR = {
  field: 'checkpoint',
  type: 'nominal',
  sort: null,
  title: null,
  legend: { labelLimit: 0 },
}

function perplexityFigure({ evaluations }: ReportData): Figure | undefined {
  const values = evaluations.flatMap(({ checkpoint, languages }) =>
    Object.entries(languages).map(([language, { perplexity }]) => ({ checkpoint, language, perplexity })),
  )
  if (values.length === 0) return undefined
  return {
    title: 'Perplexity by language (lower is better)',
    spec: {
      data: { values },
      mark: 'bar',
      encoding: {
        x: { field: 'language', type: 'nominal', title: null, axis: { labelAngle: 0 } },
        xOffset: { field: 'checkpoint', sort: null },
        y: { field: 'perplexity', type: 'quantitative', title: 'perplexity' },
        color: CHECKPOINT_COLOR,
      },
    },
  }
}

function taskFigure({ evaluations }: ReportData): Figure | undefined {
  const values = evaluations.flatMap(({ checkpoint, tasks }) =>
    Object.entries(tasks).map(([task, { accuracy, stderr }]) => ({
      checkpoint,
      task,
      accuracy,
      low: Math.max(0, accuracy - stderr),
      high: Math.min(1, accuracy + stderr),
    })),
  )
  if (values.length === 0) return undefined
  const x = { field: 'task', type: 'nominal', title: null, axis: { labelAngle: 0 } }
  const xOffset = { field: 'checkpoint', sort: null }
  return {
    title: 'Accuracy by task, with one standard error',
    spec: {
      data: { values },
      layer: [
        {
          mark: 'bar',
          encoding: {
            x,
            xOffset,
            y: { field: 'accuracy', type: 'quantitative', scale: { domain: [0, 1] }, axis: { format: '%' } },
            color: CHECKPOINT_COLOR,
          },
        },
        {
          mark: { type: 'rule', color: '#333' },
          encoding: {
            x,
            xOffset,
            y: { field: 'low', type: 'quantitative', title: '' },
            y2: { field: 'high' },
          },
        },
      ],
    },
  }
}

function routingFigure({ routing, experts }: ReportData): Figure | undefined {
  const values = (routing ?? []).flatMap(({ language, layers }) =>
    layers.flatMap((shares, layer) =>
      shares.map((share, expert) => ({ language, layer, share, expert: expertLabel(experts, expert) })),
    ),
  )
  if (values.length === 0) return undefined
  return {
    title: 'Share of the choices that each expert takes, by language and layer',
    spec: {
      data: { values },
      mark: 'rect',
      encoding: {
        column: { field: 'language', type: 'nominal', title: null, sort: null },
        x: { field: 'layer', type: 'ordinal', axis: { labelAngle: 0 } },
        y: { field: 'expert', type: 'nominal', sort: null, title: null },
        color: { field: 'share', type: 'quantitative', scale: { scheme: 'blues', domainMin: 0 } },
      },
    },
  }
}

function expertLabel(experts: readonly string[] | undefined, expert: number): string {
  const label = experts?.[expert]
  return label === undefined ? `${expert}` : `${expert} ${label}`
}

function deltaFigure({ deltas }: ReportData): Figure | undefined {
  if (!deltas || deltas.length === 0) return undefined
  return {
    title: 'Relative norm of the delta by layer',
    spec: {
      data: { values: deltas },
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'layer', type: 'quantitative', axis: { tickMinStep: 1, format: 'd' } },
        y: { field: 'relativeNorm', type: 'quantitative', title: '|delta| / |base|' },
        color: { field: 'group', type: 'nominal', title: null },
      },
    },
  }
}
