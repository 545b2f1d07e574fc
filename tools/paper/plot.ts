import { meanAndError } from './statistics.js'
import type { Row } from './table.js'

/** Points that belong together; with `isLine` they are joined in their order. */
export interface Series {
  readonly name: string
  readonly rows: readonly Row[]
  readonly isLine: boolean
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [760, 460, 60, 180, 20, 50]
const COLOURS = ['#1b7837', '#762a83', '#d95f02', '#377eb8']

/** Instructions in the new languages over those in the original ones, in percent, with standard errors, as SVG text. */
export function plotInstructions(title: string, series: readonly Series[]): string {
  const points = series.flatMap(({ rows }) => rows.map(pointOf))
  const top = Math.max(10, Math.ceil(Math.max(...points.map(({ y }) => y.mean + (y.error || 0))) / 10) * 10)
  const x = (value: number) => LEFT + (value / 100) * (WIDTH - LEFT - RIGHT)
  const y = (value: number) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM)
  const labels = placed(points, x, y)
  const parts = series.flatMap(({ rows, isLine }, s) => {
    const colour = COLOURS[s % COLOURS.length]!
    const own = rows.map(pointOf)
    const path = own.map(({ x: a, y: b }) => `${x(a.mean).toFixed(1)},${y(b.mean).toFixed(1)}`).join(' ')
    return [
      ...(isLine ? [`<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`] : []),
      ...own.flatMap((point) => drawn(point, colour, x, y)),
    ]
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="11" role="img">
<title>${escapeXml(title)}</title>
<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>
${axes(x, y, top)}
${parts.join('\n')}
${labels.join('\n')}
</svg>
`
}

type Scale = (value: number) => number
type Point = ReturnType<typeof pointOf>

function pointOf({ title, scores }: Row) {
  return {
    label: title.replaceAll('*', '').replace(/ \(.*\)$/, ''),
    x: meanAndError(scores.map(({ originalInstructions }) => 100 * originalInstructions)),
    y: meanAndError(scores.map(({ newInstructions }) => 100 * newInstructions)),
  }
}

function drawn({ x: a, y: b }: Point, colour: string, x: Scale, y: Scale): string[] {
  const line = (x1: number, y1: number, x2: number, y2: number) =>
    `<path d="M${x(x1).toFixed(1)} ${y(y1).toFixed(1)}L${x(x2).toFixed(1)} ${y(y2).toFixed(1)}" stroke="${colour}" opacity=".5"/>`
  return [
    ...(a.error > 0 ? [line(a.mean - a.error, b.mean, a.mean + a.error, b.mean)] : []),
    ...(b.error > 0 ? [line(a.mean, b.mean - b.error, a.mean, b.mean + b.error)] : []),
    `<circle cx="${x(a.mean).toFixed(1)}" cy="${y(b.mean).toFixed(1)}" r="4" fill="${colour}"/>`,
  ]
}

// About what the font takes.
const [LETTER_WIDTH, LINE_HEIGHT] = [5.7, 12]

/** Labels beside their points, from the top down, each moved down past those that it would lie on. */
function placed(points: readonly Point[], x: Scale, y: Scale): string[] {
  const boxes: { left: number; right: number; y: number }[] = []
  return points
    .toSorted((a, b) => b.y.mean - a.y.mean)
    .map(({ label, x: a, y: b }) => {
      const left = x(a.mean) + 7
      const box = { left, right: left + label.length * LETTER_WIDTH, y: y(b.mean) - 5 }
      const hit = () =>
        boxes.find(
          (each) => Math.abs(each.y - box.y) < LINE_HEIGHT && each.left < box.right && box.left < each.right,
        )
      for (let under = hit(); under; under = hit()) box.y = under.y + LINE_HEIGHT
      boxes.push(box)
      return `<text x="${left.toFixed(1)}" y="${box.y.toFixed(1)}">${escapeXml(label)}</text>`
    })
}

function axes(x: Scale, y: Scale, top: number): string {
  const across = [0, 20, 40, 60, 80, 100].map(
    (n) =>
      `<path d="M${x(n)} ${y(0)}V${y(top)}" stroke="#ddd"/><text x="${x(n)}" y="${y(0) + 16}" text-anchor="middle">${n}</text>`,
  )
  const up = Array.from({ length: top / 10 + 1 }, (_, i) => i * 10).map(
    (n) =>
      `<path d="M${x(0)} ${y(n).toFixed(1)}H${x(100)}" stroke="#ddd"/><text x="${x(0) - 8}" y="${(y(n) + 4).toFixed(1)}" text-anchor="end">${n}</text>`,
  )
  return [
    ...across,
    ...up,
    `<text x="${x(50)}" y="${HEIGHT - 12}" text-anchor="middle">instructions in the original languages, % right</text>`,
    `<text transform="translate(16 ${y(top / 2)}) rotate(-90)" text-anchor="middle">in the new languages, % right</text>`,
  ].join('\n')
}

function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}
