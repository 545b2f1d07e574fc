import type { Problem } from '@polygraft/tensor'
import type { z } from 'zod'
import { nearest } from './_nearest.js'
import type { Path, YamlText } from './_yaml.js'

type Issue = z.core.$ZodIssue

/**
 * What a schema found wrong with a document, as problems with their places: what was expected, what is there, and the nearest
 * valid word. A schema's own `error` text is taken for what was expected.
 */
export function schemaProblems(yaml: YamlText, schema: z.ZodType, issues: readonly Issue[]): Problem[] {
  return issues.flatMap((issue) => problemsOf(yaml, schema, issue, []))
}

function problemsOf(yaml: YamlText, schema: z.ZodType, issue: Issue, above: Path): Problem[] {
  const path = [...above, ...(issue.path as Path)]
  switch (issue.code) {
    case 'unrecognized_keys': {
      const choices = keysAt(schema, yaml.data, path)
      return issue.keys.map((key) => unknownKey(yaml, [...path, key], choices))
    }
    case 'invalid_union': {
      const branch = nearestBranch(issue.errors)
      if (branch) return branch.flatMap((inner) => problemsOf(yaml, schema, inner, path))
      return [badValue(yaml, path, 'options' in issue ? (issue.options as string[]) : [], issue.message)]
    }
    case 'invalid_key':
      return [badKey(yaml, path, issue.issues.map(({ message }) => message).join('; '))]
    case 'invalid_value':
      return [badValue(yaml, path, issue.values.map(String), issue.message)]
    default:
      return [badValue(yaml, path, [], expectedOf(issue))]
  }
}

/** Of a union's branches the one that the value was meant for: its outer form fits, and least is wrong inside. */
function nearestBranch(branches: readonly (readonly Issue[])[]): readonly Issue[] | undefined {
  return branches
    .filter((issues) => issues.every(({ path, code }) => path.length > 0 || code === 'unrecognized_keys'))
    .sort((a, b) => a.length - b.length)[0]
}

function expectedOf(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return issue.message.startsWith('Invalid input') ? nameOfType(issue.expected) : issue.message
    case 'too_small':
      return issue.origin === 'array' || issue.origin === 'string'
        ? `at least ${issue.minimum} of them`
        : `a number ${issue.inclusive ? 'of at least' : 'above'} ${issue.minimum}`
    case 'too_big':
      return `a number ${issue.inclusive ? 'of at most' : 'below'} ${issue.maximum}`
    default:
      return issue.message
  }
}

const TYPES: Readonly<Record<string, string>> = {
  object: 'keys with values',
  record: 'keys with values',
  array: 'a list',
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
}

function nameOfType(type: string): string {
  return TYPES[type] ?? type
}

function unknownKey(yaml: YamlText, path: Path, choices: readonly string[]): Problem {
  const key = String(path.at(-1))
  return {
    code: 'unknown-key',
    message: `There is no key ${key} here`,
    ...yaml.place(path, 'key'),
    ...(choices.length > 0 ? { expected: choices.join(', ') } : {}),
    received: key,
    ...meant(key, choices),
  }
}

function badKey(yaml: YamlText, path: Path, expected: string): Problem {
  const received = String(path.at(-1))
  const message = `${received} is no key of ${path.at(-2) ?? 'the recipe'}`
  return { code: 'unknown-key', message, ...yaml.place(path, 'key'), expected, received }
}

function badValue(yaml: YamlText, path: Path, choices: readonly string[], otherwise: string): Problem {
  const value = valueAt(yaml.data, path)
  const name = path.length > 0 ? `${path.at(-1)}` : 'The recipe'
  const label = typeof path.at(-1) === 'number' ? `Item ${Number(path.at(-1)) + 1} of ${path.at(-2)}` : name
  const missing = value === undefined
  return {
    code: missing ? 'missing-key' : 'bad-value',
    message: missing ? `${label} is missing` : `${label} is not usable`,
    ...yaml.place(path),
    expected: choices.length > 0 ? choices.join(', ') : otherwise,
    ...(missing ? {} : { received: describe(value) }),
    ...(typeof value === 'string' ? meant(value, choices) : {}),
  }
}

/** `next` with the nearest valid word, where there is one. */
export function meant(word: string, choices: readonly string[]): { next?: string } {
  const choice = nearest(word, choices)
  return choice === undefined ? {} : { next: `Did you mean ${choice}?` }
}

const SHOWN = 60

/** A value in few words. */
export function describe(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}...` : text
}

function valueAt(data: unknown, path: Path): unknown {
  return path.reduce<unknown>(
    (value, key) =>
      typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined,
    data,
  )
}

/** The keys that the schema has for the map at `path` of `data`. */
function keysAt(schema: z.ZodType, data: unknown, path: Path): readonly string[] {
  const def = (schema as unknown as { def: Def }).def
  switch (def.type) {
    case 'object': {
      if (path.length === 0) return Object.keys(def.shape!)
      const next = def.shape![String(path[0])]
      return next ? keysAt(next, valueAt(data, path.slice(0, 1)), path.slice(1)) : []
    }
    case 'record':
      return path.length === 0 ? [] : keysAt(def.valueType!, valueAt(data, path.slice(0, 1)), path.slice(1))
    case 'array':
      return path.length === 0 ? [] : keysAt(def.element!, valueAt(data, path.slice(0, 1)), path.slice(1))
    case 'union': {
      const options = def.options!.filter((option) => accepts(option, def.discriminator, data))
      return [...new Set(options.flatMap((option) => keysAt(option, data, path)))]
    }
    default:
      return def.innerType ? keysAt(def.innerType, data, path) : def.in ? keysAt(def.in, data, path) : []
  }
}

/** What of zod's schemas is looked at. */
interface Def {
  readonly type: string
  readonly shape?: Readonly<Record<string, z.ZodType>>
  readonly valueType?: z.ZodType
  readonly element?: z.ZodType
  readonly options?: readonly z.ZodType[]
  readonly discriminator?: string
  readonly innerType?: z.ZodType
  readonly in?: z.ZodType
}

/** Whether a branch of a discriminated union is the one that `data` names; other unions have no such mark. */
function accepts(option: z.ZodType, discriminator: string | undefined, data: unknown): boolean {
  if (discriminator === undefined) return true
  const field = (option as unknown as { def: Def }).def.shape?.[discriminator]
  return field?.safeParse(valueAt(data, [discriminator])).success ?? false
}
