import type { Allowed } from '@polygraft/tensor'
import { InvalidArgumentError } from 'commander'

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KIB: 2 ** 10,
  MIB: 2 ** 20,
  GIB: 2 ** 30,
  TIB: 2 ** 40,
}

/** `5GB`, `512MiB`, `1000000` → bytes. */
export function parseBytes(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text)
  const unit = UNITS[match?.[2]?.toUpperCase() ?? '?']
  const bytes = match && unit ? Math.floor(Number(match[1]) * unit) : 0
  if (!(bytes > 0 && Number.isFinite(bytes)))
    throw new InvalidArgumentError('Expected a size such as 5GB or 512MiB.')
  return bytes
}

/** A whole number from `least` to `most`. */
export function parseWhole(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
    const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
    if (!(value >= least && value <= most))
      throw new InvalidArgumentError(`Expected a whole number ${range}.`)
    return value
  }
}

/** Any finite number. */
export function parseReal(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (!Number.isFinite(value)) throw new InvalidArgumentError('Expected a number.')
  return value
}

/** `0=1,1=0.8` → {0 → 1, 1 → 0.8}. */
export function parseIndexed(text: string): ReadonlyMap<number, number> {
  const entries = new Map<number, number>()
  for (const item of text.split(',')) {
    const match = /^\s*(\d+)\s*=\s*(\S+)\s*$/.exec(item)
    if (!match) throw new InvalidArgumentError('Expected index=value pairs such as 0=1,1=0.8.')
    const index = Number(match[1])
    if (entries.has(index)) throw new InvalidArgumentError(`Index ${index} is given twice.`)
    entries.set(index, parseReal(match[2]!))
  }
  return entries
}

/** `el,hu,tr` → ['el', 'hu', 'tr']. */
export function parseList(text: string): readonly string[] {
  const items = text.split(',').map((item) => item.trim())
  if (items.some((item) => item === '')) throw new InvalidArgumentError('Expected a list such as el,hu,tr.')
  if (new Set(items).size !== items.length) throw new InvalidArgumentError('An item is given twice.')
  return items
}

// No model has more layers.
const MAX_INDICES = 10_000

/** `0,1,30-31` → [0, 1, 30, 31]. */
export function parseIndices(text: string): readonly number[] {
  const indices = text.split(',').flatMap((item) => {
    const match = /^\s*(\d{1,6})(?:-(\d{1,6}))?\s*$/.exec(item)
    const [first, last] = match ? [Number(match[1]), Number(match[2] ?? match[1])] : [0, -1]
    if (last < first || last - first >= MAX_INDICES)
      throw new InvalidArgumentError('Expected indices and ranges such as 0,1,30-31.')
    return Array.from({ length: last - first + 1 }, (_, i) => first + i)
  })
  if (new Set(indices).size !== indices.length) throw new InvalidArgumentError('An index is given twice.')
  return indices
}

/** `1=./el`, added to what was given before: {1 → './el'}. */
export function parsePlaced(
  text: string,
  before: ReadonlyMap<number, string> = new Map(),
): ReadonlyMap<number, string> {
  const match = /^\s*(\d+)=(.+)$/.exec(text)
  if (!match) throw new InvalidArgumentError('Expected an index and a checkpoint such as 1=./model.')
  const index = Number(match[1])
  if (before.has(index)) throw new InvalidArgumentError(`Index ${index} is given twice.`)
  return new Map([...before, [index, match[2]!]])
}

/** `score.*=a head for ranking`, added to what was given before. */
export function parseAllowed(text: string, before: readonly Allowed[] = []): readonly Allowed[] {
  const [tensors, reason] = [
    text.slice(0, text.indexOf('=')).trim(),
    text.slice(text.indexOf('=') + 1).trim(),
  ]
  if (!text.includes('=') || tensors === '' || reason === '')
    throw new InvalidArgumentError('Expected names and a reason such as "score.weight=not for generation".')
  return [...before, { tensors, reason }]
}
