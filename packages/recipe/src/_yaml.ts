import { ModelError, type Problem } from '@polygraft/tensor'
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseAllDocuments } from 'yaml'

/** Keys and indices that lead to a value of a document. */
export type Path = readonly (string | number)[]

/** A place in a recipe, for problems. */
export interface Place {
  readonly file: string
  /** Both count from 1. */
  readonly line: number
  readonly column: number
}

/** One YAML document as plain data, whose parts still know where they were written. */
export interface YamlText {
  readonly file: string
  readonly data: unknown
  /** Where the value at `path` begins, or with 'key' its key; of a path that is not there, what is nearest above it. */
  place(path: Path, part?: 'key' | 'value'): Place
}

// Enough for any recipe that people write; a file of aliases to aliases must not take all memory.
const MAX_ALIASES = 1000

/**
 * Parses a file of one YAML document (1.2, with merge keys).
 * @throws ModelError "bad-yaml" with every syntax error and its place.
 */
export function parseYaml(text: string, file: string): YamlText {
  const lines = new LineCounter()
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, merge: true })
  const at = (offset: number): Place => {
    const { line, col } = lines.linePos(offset)
    return { file, line: Math.max(1, line), column: Math.max(1, col) }
  }
  const bad = (message: string, offset: number): Problem => ({ code: 'bad-yaml', message, ...at(offset) })
  if (!Array.isArray(documents) || documents.length === 0) throw new ModelError(bad('The recipe is empty', 0))
  const errors = documents.flatMap((each) => each.errors.map(({ message, pos }) => bad(message, pos[0])))
  if (errors.length > 0) throw new ModelError(errors)
  if (documents.length > 1)
    throw new ModelError(bad('The file holds several documents; a recipe is one', documents[1]!.range[0]))
  const [document] = documents
  return { file, data: toData(), place: (path, part = 'value') => at(offsetOf(path, part)) }

  function toData(): unknown {
    try {
      return document!.toJS({ maxAliasCount: MAX_ALIASES })
    } catch (cause) {
      throw new ModelError(bad((cause as Error).message, 0), { cause })
    }
  }

  function offsetOf(path: Path, part: 'key' | 'value'): number {
    let node = document!.contents as Node | null
    let offset = node?.range?.[0] ?? 0
    for (const [depth, key] of path.entries()) {
      const pair = isMap(node) ? node.items.find((item) => keyOf(item) === String(key)) : undefined
      const next = isSeq(node) ? (node.items[Number(key)] as Node | undefined) : (pair?.value as Node | null)
      const named = pair && part === 'key' && depth === path.length - 1
      const begin = (named || !next?.range ? (pair?.key as Node | undefined) : next)?.range?.[0]
      if (begin === undefined) return offset
      offset = begin
      node = isAlias(next) ? (next.resolve(document!) ?? null) : (next ?? null)
    }
    return offset
  }
}

function keyOf({ key }: Pair): string {
  return String(isScalar(key) ? key.value : key)
}
