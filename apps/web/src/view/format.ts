import { language } from '../state/settings.js'

const BYTES = ['B', 'kB', 'MB', 'GB', 'TB']
const COUNTS = ['', ' k', ' M', ' B', ' T']

/** A byte count with a decimal unit, three figures, in the page's language. */
export function bytes(value: number): string {
  return value < 1000
    ? `${value} B`
    : inUnits(
        value,
        BYTES.map((unit) => ` ${unit}`),
      )
}

/** An element count: `8.03 B`, `1.23 M`, `512`. */
export function count(value: number): string {
  return value < 10_000 ? number(value) : inUnits(value, COUNTS)
}

/** A real number for tables, five figures at most. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return `${value}`
  const size = Math.abs(value)
  const isFar = value !== 0 && (size < 1e-3 || size >= 1e6)
  const options = isFar
    ? ({ notation: 'scientific', maximumSignificantDigits: 3 } as const)
    : ({ maximumSignificantDigits: 5 } as const)
  return new Intl.NumberFormat(language.value, options).format(value)
}

/** A share of one as per cent. */
export function share(value: number): string {
  return new Intl.NumberFormat(language.value, { style: 'percent', maximumSignificantDigits: 3 }).format(
    value,
  )
}

function inUnits(value: number, units: readonly string[]): string {
  const digits = Math.floor(Math.log10(Number(value.toPrecision(3))))
  const power = Math.min(units.length - 1, Math.floor(digits / 3))
  const figures = { minimumSignificantDigits: 3, maximumSignificantDigits: 3 }
  return `${new Intl.NumberFormat(language.value, figures).format(value / 1000 ** power)}${units[power]}`
}
