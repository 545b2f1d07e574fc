import type { Problem } from '@polygraft/tensor'
import { models } from '../state/models.js'
import { text } from '../state/settings.js'
import { number } from './format.js'

/** Problems as a list: what, where, expected, received, what to do. */
export function Problems({
  problems,
  kind = 'problem',
}: {
  problems: readonly Problem[]
  kind?: 'problem' | 'warning'
}) {
  if (problems.length === 0) return null
  return (
    <ul class={`problems ${kind}`} role={kind === 'problem' ? 'alert' : undefined}>
      {problems.map((problem) => (
        <li key={`${problem.code} ${problem.file} ${problem.tensor} ${problem.message}`}>
          <strong>{problem.message}</strong> <code>{problem.code}</code>
          {[problem.file, problem.tensor].map((place) => place && <div key={place}>{place}</div>)}
          <Detail label={text.value.expected} value={problem.expected} />
          <Detail label={text.value.received} value={problem.received} />
          <Detail label={text.value.next} value={problem.next} />
        </li>
      ))}
    </ul>
  )
}

function Detail({ label, value }: { label: string; value: string | undefined }) {
  if (value === undefined) return null
  return (
    <div>
      <span class="muted">{label}: </span>
      {value}
    </div>
  )
}

/** A choice among the open checkpoints. @param empty What choosing none is called, where that is allowed. */
export function ModelChoice(props: {
  label: string
  value: string
  onChange: (key: string) => void
  empty?: string
  isFitting?: (key: string) => boolean
}) {
  const { label, value, onChange, empty, isFitting = () => true } = props
  const known = [...models.value.values()].filter(({ key }) => isFitting(key))
  return (
    <label class="field">
      <span>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {empty !== undefined && <option value="">{empty}</option>}
        {known.map(({ key, name }) => (
          <option key={key} value={key}>
            {name}
          </option>
        ))}
      </select>
    </label>
  )
}

/** How far something is, with a button that ends it. */
export function Meter({ done, total, onCancel }: { done: number; total: number; onCancel: () => void }) {
  return (
    <div class="meter">
      <progress aria-label={text.value.working} max={Math.max(1, total)} value={done} />
      <button type="button" onClick={onCancel}>
        {text.value.cancel}
      </button>
    </div>
  )
}

/** A term and what it is. */
export function Facts({ facts }: { facts: readonly (readonly [term: string, value: string | undefined])[] }) {
  return (
    <dl class="facts">
      {facts.map(
        ([term, value]) =>
          value !== undefined && (
            <div key={term}>
              <dt>{term}</dt>
              <dd>{value}</dd>
            </div>
          ),
      )}
    </dl>
  )
}

/** Hands the user a file. */
export function saveFile(name: string, file: Blob): void {
  const url = URL.createObjectURL(file)
  const link = document.createElement('a')
  link.href = url
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(url), 60_000)
}

/** A number by a slider; factors of a delta go from 0 to 2. @param onRelease Called when it is let go. */
export function Slider(props: {
  label: string
  value: number
  max?: number
  step?: number
  onChange: (value: number) => void
  onRelease?: (value: number) => void
}) {
  const { label, value, max = 2, step = 0.05, onChange, onRelease } = props
  return (
    <label class="field">
      <span>
        {label}: {number(value)}
      </span>
      <input
        type="range"
        min={0}
        max={max}
        step={step}
        value={value}
        onInput={(event) => onChange(Number(event.currentTarget.value))}
        onChange={(event) => onRelease?.(Number(event.currentTarget.value))}
      />
    </label>
  )
}
