/** Names between commas, without blanks around them; empty ones are left out. */
export function parseLanguages(list: string): readonly string[] {
  return list
    .split(/[,，、]/)
    .map((name) => name.trim())
    .filter((name) => name !== '')
}
