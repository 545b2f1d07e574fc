import type { Problem } from '@polygraft/tensor'
import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import { text } from '../state/settings.js'
import { problemsOf, worker } from '../state/worker.js'
import type { Model, TensorView } from '../worker/api.js'
import { number } from './format.js'
import { Problems } from './parts.js'

/** Histogram and heat map of one tensor, read when it is shown. */
export function TensorPanel({ model, tensor }: { model: Model; tensor: string }) {
  const view = useSignal<TensorView | undefined>(undefined)
  const problems = useSignal<readonly Problem[]>([])
  useEffect(() => {
    worker()
      .view(model.key, tensor)
      .then((result) => {
        view.value = result
      })
      .catch((error: unknown) => {
        problems.value = problemsOf(error)
      })
  }, [])
  return (
    <div class="card" aria-live="polite">
      <h3 class="name">{tensor}</h3>
      <Problems problems={problems.value} />
      {view.value ? <Values view={view.value} /> : problems.value.length === 0 && <p>{text.value.reading}</p>}
    </div>
  )
}

function Values({ view }: { view: TensorView }) {
  const { min, max, mean, std, rows, rowsRead } = view
  const figures = text.value.figures(number(min), number(max), number(mean), number(std))
  return (
    <>
      <p>{figures}</p>
      {rowsRead < rows && <p class="muted">{text.value.sampled(number(rowsRead), number(rows))}</p>}
      <div class="columns">
        <figure>
          <figcaption>{text.value.histogram}</figcaption>
          <Histogram view={view} label={`${text.value.histogram}: ${figures}`} />
        </figure>
        <figure>
          <figcaption>{text.value.heatMap}</figcaption>
          <Heat view={view} label={text.value.heatMap} />
        </figure>
      </div>
    </>
  )
}

function Histogram({ view: { histogram, min, max }, label }: { view: TensorView; label: string }) {
  const most = Math.max(1, ...histogram)
  return (
    <>
      <svg
        class="histogram"
        viewBox={`0 0 ${histogram.length} 30`}
        preserveAspectRatio="none"
        role="img"
        aria-label={label}
      >
        {histogram.map((bin, i) => (
          <rect key={i} x={i + 0.05} width={0.9} y={30 - (bin / most) * 30} height={(bin / most) * 30} />
        ))}
      </svg>
      <div class="axis">
        <span>{number(min)}</span>
        <span>{number(max)}</span>
      </div>
    </>
  )
}

function Heat({ view: { heat }, label }: { view: TensorView; label: string }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  useEffect(() => draw(canvas.current!, heat), [])
  return (
    <canvas class="heat" ref={canvas} width={heat.columns} height={heat.rows} role="img" aria-label={label} />
  )
}

function draw(canvas: HTMLCanvasElement, { rows, columns, values }: TensorView['heat']): void {
  if (rows * columns === 0) return
  const pixels = new ImageData(columns, rows)
  const most = values.reduce((largest, value) => Math.max(largest, value), 0) || 1
  for (const [i, value] of values.entries()) pixels.data.set([...colour(value / most), 255], i * 4)
  canvas.getContext('2d')!.putImageData(pixels, 0, 0)
}

const STOPS = [
  [12, 20, 40],
  [15, 82, 100],
  [22, 150, 120],
  [150, 205, 100],
  [250, 240, 160],
] as const

/** Dark to light through blue and green, even in lightness, so that it is read without seeing hues. */
export function colour(share: number): [number, number, number] {
  const at = Math.max(0, Math.min(1, share)) * (STOPS.length - 1)
  const low = Math.min(STOPS.length - 2, Math.floor(at))
  const [a, b] = [STOPS[low]!, STOPS[low + 1]!]
  const mix = (i: 0 | 1 | 2) => Math.round(a[i] + (b[i] - a[i]) * (at - low))
  return [mix(0), mix(1), mix(2)]
}
