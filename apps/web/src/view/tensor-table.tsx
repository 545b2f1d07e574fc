import { type Signal, useSignal } from '@preact/signals'
import { useRef } from 'preact/hooks'
import { go } from '../state/route.js'
import { text } from '../state/settings.js'
import type { Model } from '../worker/api.js'
import { bytes, count } from './format.js'
import { Scroll } from './scroll.js'
import { search } from './search.js'

/** As in style.css. Unit: pixels. */
const ROW_HEIGHT = 32
const SHOWN_ROWS = 14
const MARGIN_ROWS = 6

/** All tensors, searchable. Only the rows in view are in the page, so that thousands cost nothing. */
export function TensorTable(props: { model: Model; filter: Signal<string>; chosen: string }) {
  const { model, filter, chosen } = props
  const top = useSignal(0)
  const box = useRef<HTMLElement>(null)
  const found = search(model.tensors, filter.value)
  const first = Math.max(
    0,
    Math.min(Math.floor(top.value / ROW_HEIGHT) - MARGIN_ROWS, found.length - SHOWN_ROWS),
  )
  const rows = found.slice(first, first + SHOWN_ROWS + 2 * MARGIN_ROWS)
  const below = found.length - first - rows.length
  const look = (name: string) => go('inspect', { model: model.key, tensor: name })
  return (
    <>
      <label class="field">
        <span>{text.value.search}</span>
        <input
          type="search"
          value={filter.value}
          onInput={(event) => {
            filter.value = event.currentTarget.value
            box.current?.scrollTo(0, 0)
          }}
        />
      </label>
      <p class="muted" aria-live="polite">
        {text.value.shown(count(found.length), count(model.tensors.length))}
      </p>
      <Scroll
        label={text.value.tensors}
        name="tensors"
        box={box}
        onScroll={(at) => {
          top.value = at
        }}
      >
        <table aria-rowcount={found.length + 1}>
          <thead>
            <tr>
              <th scope="col">{text.value.tensor}</th>
              <th scope="col">{text.value.dtype}</th>
              <th scope="col">{text.value.shape}</th>
              <th scope="col">{text.value.size}</th>
            </tr>
          </thead>
          <tbody>
            <Gap rows={first} />
            {rows.map((row, i) => (
              <tr key={row.name} aria-rowindex={first + i + 2} class={row.name === chosen ? 'chosen' : ''}>
                <th scope="row">
                  <button type="button" class="link" onClick={() => look(row.name)}>
                    {row.name}
                  </button>
                </th>
                <td>{row.dtype}</td>
                <td>{row.shape.join(' × ') || '1'}</td>
                <td class="number">{bytes(row.bytes)}</td>
              </tr>
            ))}
            <Gap rows={below} />
          </tbody>
        </table>
      </Scroll>
    </>
  )
}

function Gap({ rows }: { rows: number }) {
  if (rows <= 0) return null
  return (
    <tr>
      <td colSpan={4} class="gap" style={{ height: `${rows * ROW_HEIGHT}px` }} />
    </tr>
  )
}
