import { type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'

/** As deep as the reference parser of safetensors headers (serde_json) goes. Real files stay below 20. */
const MAX_DEPTH = 128
const LONE_SURROGATE = /\p{Surrogate}/u
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y
const QUOTE = 0x22
const BACKSLASH = 0x5c
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}

interface Scanner {
  readonly text: string
  readonly file: string | undefined
  readonly integersOnly: boolean
  at: number
  depth: number
}

/**
 * Parses JSON as RFC 8259 defines it, in one pass, and refuses what parsers disagree about or quietly lose: duplicate
 * keys, a byte order mark, lone surrogates, integers that a double cannot hold, numbers beyond the double's range,
 * nesting deeper than 128. A key `__proto__` becomes an own property like any other.
 *
 * @param file Named in the error.
 * @throws ModelError "bad-json" with line and column (both from 1; columns in UTF-16 units).
 */
export function parseJson(text: string, file?: string): JsonValue {
  return scan({ text, file, integersOnly: false, at: 0, depth: 0 })
}

/** `parseJson` for files without any fractions: `1.0` and `1e2` are refused as well, not turned into integers. */
export function parseIntegerJson(text: string, file?: string): JsonValue {
  return scan({ text, file, integersOnly: true, at: 0, depth: 0 })
}

/** Whether `value` is a JSON object, neither an array nor null. */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function scan(s: Scanner): JsonValue {
  if (s.text.charCodeAt(0) === 0xfeff) fail(s, 0, 'The text begins with a byte order mark')
  const lone = LONE_SURROGATE.exec(s.text)
  if (lone) fail(s, lone.index, 'Half of a surrogate pair stands alone')
  const value = scanValue(s)
  skipSpace(s)
  if (s.at < s.text.length) fail(s, s.at, 'Text follows the JSON value')
  return value
}

function scanValue(s: Scanner): JsonValue {
  skipSpace(s)
  switch (s.text[s.at]) {
    case '{':
      return scanObject(s)
    case '[':
      return scanArray(s)
    case '"':
      return scanString(s)
    case 't':
      return scanWord(s, 'true', true)
    case 'f':
      return scanWord(s, 'false', false)
    case 'n':
      return scanWord(s, 'null', null)
    default:
      return scanNumber(s)
  }
}

function scanObject(s: Scanner): JsonObject {
  const object: Record<string, JsonValue> = {}
  enter(s)
  if (peek(s) === '}') return leave(s, object)
  for (;;) {
    const keyAt = s.at
    if (s.text.charCodeAt(keyAt) !== QUOTE) fail(s, keyAt, 'A key in double quotes belongs here')
    const key = scanString(s)
    if (Object.hasOwn(object, key))
      fail(s, keyAt, `The key ${JSON.stringify(key)} occurs twice in one object`)
    if (peek(s) !== ':') fail(s, s.at, 'A colon belongs here')
    s.at++
    const value = scanValue(s)
    // Assignment would set the prototype instead.
    if (key === '__proto__') defineOwn(object, key, value)
    else object[key] = value
    const next = peek(s)
    if (next === '}') return leave(s, object)
    if (next !== ',') fail(s, s.at, 'A comma or a closing brace belongs here')
    s.at++
    skipSpace(s)
  }
}

function defineOwn(object: Record<string, JsonValue>, key: string, value: JsonValue): void {
  Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true })
}

function scanArray(s: Scanner): JsonValue[] {
  const array: JsonValue[] = []
  enter(s)
  if (peek(s) === ']') return leave(s, array)
  for (;;) {
    array.push(scanValue(s))
    const next = peek(s)
    if (next === ']') return leave(s, array)
    if (next !== ',') fail(s, s.at, 'A comma or a closing bracket belongs here')
    s.at++
  }
}

function scanString(s: Scanner): string {
  const { text } = s
  const begin = s.at + 1
  for (let at = begin; ; at++) {
    const unit = text.charCodeAt(at)
    if (unit === QUOTE) {
      s.at = at + 1
      return text.slice(begin, at)
    }
    if (unit === BACKSLASH) return scanEscapedString(s, begin, at)
    if (!(unit >= 0x20)) failInString(s, at)
  }
}

/** The rest of a string that holds escapes; `at` is the first of them. */
function scanEscapedString(s: Scanner, begin: number, at: number): string {
  const { text } = s
  let result = text.slice(begin, at)
  while (text.charCodeAt(at) !== QUOTE) {
    if (text.charCodeAt(at) === BACKSLASH) {
      result += unescaped(s, at)
      at += text[at + 1] === 'u' ? 6 : 2
    }
    const run = at
    while (isPlain(text.charCodeAt(at))) at++
    result += text.slice(run, at)
    if (!(text.charCodeAt(at) >= 0x20)) failInString(s, at)
  }
  if (LONE_SURROGATE.test(result)) fail(s, begin - 1, 'Half of a surrogate pair stands alone in a string')
  s.at = at + 1
  return result
}

function isPlain(unit: number): boolean {
  return unit >= 0x20 && unit !== QUOTE && unit !== BACKSLASH
}

function unescaped(s: Scanner, at: number): string {
  const letter = s.text[at + 1] ?? ''
  if (letter !== 'u') return ESCAPES[letter] ?? fail(s, at, 'This escape does not exist in JSON')
  const hex = s.text.slice(at + 2, at + 6)
  if (!/^[0-9a-fA-F]{4}$/.test(hex)) fail(s, at, 'Four hexadecimal digits belong after \\u')
  return String.fromCharCode(Number.parseInt(hex, 16))
}

function scanNumber(s: Scanner): number {
  NUMBER.lastIndex = s.at
  const match = NUMBER.exec(s.text)
  if (!match)
    return fail(s, s.at, s.at < s.text.length ? 'No JSON value begins like this' : 'The text ends too early')
  const [literal, fraction, exponent] = match
  const value = Number(literal)
  if (!Number.isFinite(value)) fail(s, s.at, 'The number is beyond the range of a double')
  if (fraction === undefined && exponent === undefined) {
    if (!Number.isSafeInteger(value) && BigInt(literal) !== BigInt(value))
      fail(s, s.at, 'The integer is beyond 2^53 and would change')
  } else if (s.integersOnly) fail(s, s.at, 'An integer without fraction or exponent belongs here')
  s.at += literal.length
  const next = s.text.charCodeAt(s.at)
  if (next >= 0x30 && next <= 0x39) fail(s, s.at - literal.length, 'A number has a leading zero')
  return value
}

function scanWord<T extends JsonValue>(s: Scanner, word: string, value: T): T {
  if (!s.text.startsWith(word, s.at)) fail(s, s.at, 'No JSON value begins like this')
  s.at += word.length
  return value
}

function enter(s: Scanner): void {
  if (++s.depth > MAX_DEPTH) fail(s, s.at, `Nesting is deeper than ${MAX_DEPTH}`)
  s.at++
}

function leave<T>(s: Scanner, value: T): T {
  s.depth--
  s.at++
  return value
}

/** The next character that is not white space, left where it is; undefined at the end. */
function peek(s: Scanner): string | undefined {
  skipSpace(s)
  return s.text[s.at]
}

function skipSpace(s: Scanner): void {
  for (;;) {
    const unit = s.text.charCodeAt(s.at)
    if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) return
    s.at++
  }
}

function failInString(s: Scanner, at: number): never {
  if (at >= s.text.length) fail(s, at, 'The text ends inside a string')
  fail(s, at, 'A control character stands in a string unescaped')
}

function fail(s: Scanner, at: number, message: string): never {
  const before = s.text.slice(0, at)
  const line = before.split('\n').length
  const column = at - before.lastIndexOf('\n')
  throw new ModelError({
    code: 'bad-json',
    message: `${message}, at line ${line}, column ${column}`,
    ...(s.file === undefined ? {} : { file: s.file }),
    received: at < s.text.length ? JSON.stringify(s.text.slice(at, at + 24)) : 'the end of the text',
  })
}
