/** Whether `name` is a relative path with forward slashes that stays inside of its folder on every platform. */
export function isInside(name: string): boolean {
  // Backslashes and colons are separators and drives (or streams) on Windows: the same checkpoint must open everywhere.
  if (name === '' || /[\\:\0]/.test(name)) return false
  return name.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
}

/** `name` without its folders. */
export function baseName(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

/** Code point order, as Rust and Python sort strings. JavaScript's own order differs above U+FFFF. */
export function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    // Where two strings part, a surrogate stands for a code point above every other unit's.
    if (x !== y) return isSurrogate(x) === isSurrogate(y) ? x - y : isSurrogate(x) ? 1 : -1
  }
  return a.length - b.length
}

function isSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit <= 0xdfff
}
