import { useSignal } from '@preact/signals'
import { text } from '../state/settings.js'
import type { Comparison } from '../worker/api.js'
import { cellsOf, type Measure } from './cells.js'
import { number, share } from './format.js'
import { Scroll } from './scroll.js'
import { colour } from './tensor-panel.js'

/** What a cell can show. `heat`: how strongly it changed, in no unit. */
const MEASURES = {
  relativeNorm: { show: number, heat: (value: number) => value },
  cosine: { show: (value: number) => value.toFixed(4), heat: (value: number) => 1 - value },
  changedShare: { show: share, heat: (value: number) => value },
} as const satisfies Record<Measure, unknown>

/** The change as a table of layer x group whose cells are coloured. */
export function DeltaMap({ comparison }: { comparison: Comparison }) {
  const measure = useSignal<Measure>('relativeNorm')
  const { show, heat } = MEASURES[measure.value]
  const cells = cellsOf(comparison.tensors, measure.value)
  const groups = [...new Set(cells.map(({ group }) => group))]
  const layers = [...new Set(cells.map(({ layer }) => layer))].sort((a, b) => (a ?? 1e9) - (b ?? 1e9))
  const finite = cells.map(({ value }) => heat(value)).filter(Number.isFinite)
  const [least, most] = [Math.min(...finite), Math.max(...finite)]
  return (
    <>
      <div class="title">
        <h2>{text.value.byLayer}</h2>
        <label class="field">
          <span>{text.value.measure}</span>
          <select
            value={measure.value}
            onChange={(event) => {
              measure.value = event.currentTarget.value as Measure
            }}
          >
            {(Object.keys(MEASURES) as Measure[]).map((name) => (
              <option key={name} value={name}>
                {text.value[name]}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Scroll label={text.value.byLayer} name="map">
        <table>
          <thead>
            <tr>
              <th scope="col">{text.value.layer}</th>
              {groups.map((group) => (
                <th scope="col" key={group}>
                  {group}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {layers.map((layer) => (
              <tr key={`${layer}`}>
                <th scope="row">{layer ?? text.value.outside}</th>
                {groups.map((group) => {
                  const cell = cells.find((each) => each.layer === layer && each.group === group)
                  const at = cell ? (heat(cell.value) - least) / (most - least || 1) : 0
                  return (
                    <td key={group} style={cell ? paint(at) : {}}>
                      {cell && show(cell.value)}
                    </td>
                  )
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </>
  )
}

/** Text stays readable on every colour. */
export function paint(at: number): { background: string; color: string } {
  const [r, g, b] = colour(at)
  const lightness = (0.2126 * r ** 2.2 + 0.7152 * g ** 2.2 + 0.0722 * b ** 2.2) / 255 ** 2.2
  return { background: `rgb(${r} ${g} ${b})`, color: lightness > 0.18 ? '#000' : '#fff' }
}
