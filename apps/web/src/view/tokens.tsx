import { text } from '../state/settings.js'
import type { Piece } from '../worker/chat-api.js'

/** As many colours as style.css has; experts beyond take them again. */
const COLOURS = 8

/** Tokens on the colour of the expert that one layer's gate found most probable; the others it took are in the title. */
export function Tokens(props: { pieces: readonly Piece[]; layer: number; experts: readonly string[] }) {
  const { pieces, layer, experts } = props
  return (
    <>
      {pieces.map(({ text: shown, choices }, i) => {
        const chosen = choices?.[layer] ?? []
        if (chosen.length === 0) return shown
        return (
          <span
            key={i}
            class={`token ${expertClass(chosen[0]!)}`}
            title={chosen.map((expert) => experts[expert]).join(', ')}
          >
            {shown}
          </span>
        )
      })}
    </>
  )
}

/** What the colours mean. */
export function Legend({ experts }: { experts: readonly string[] }) {
  if (experts.length === 0) return null
  return (
    <ul class="legend" aria-label={text.value.experts}>
      {experts.map((label, expert) => (
        <li key={label} class={`token ${expertClass(expert)}`}>
          {label}
        </li>
      ))}
    </ul>
  )
}

function expertClass(expert: number): string {
  return `expert-${expert % COLOURS}`
}

/** Of the pieces' first choices in a layer, those of each expert. */
export function firstChoices(pieces: readonly Piece[], layer: number, experts: number): readonly number[] {
  const counts = new Array<number>(experts).fill(0)
  for (const { choices } of pieces) {
    const first = choices?.[layer]?.[0]
    if (first !== undefined) counts[first]! += 1
  }
  const all = counts.reduce((sum, count) => sum + count, 0)
  return counts.map((count) => (all === 0 ? 0 : count / all))
}
