import type { ByteSource, Source, SourceId, StoredTensor } from '@polygraft/tensor'

/** The sources that were opened so far in this process and are still in use, by the id that was computed for them. */
const opened = new Map<SourceId, Promise<readonly WeakRef<Source>[]>>()
const COMPARE_BYTES = 1024 * 1024

/**
 * Makes sure that equal ids mean equal tensors, though an id comes from a sample: a source whose id is taken by another
 * source in use gets that id only if the two agree in every byte, else the id with `#2`, `#3`, … Files that are the
 * same anyway are not compared.
 */
export async function distinct(source: Source, mayRead: boolean): Promise<Source> {
  const earlier = opened.get(source.id) ?? Promise.resolve([])
  // In turn: two that open at the same time must see each other.
  const turn = earlier.then(async (refs) => {
    const others = refs.flatMap((ref) => ref.deref() ?? [])
    const placed = { ...source, id: await idAmong(source, others, mayRead) }
    return { placed, refs: [...others, placed].map((one) => new WeakRef(one)) }
  })
  opened.set(
    source.id,
    turn.then(({ refs }) => refs),
  )
  return (await turn).placed
}

async function idAmong(source: Source, others: readonly Source[], mayRead: boolean): Promise<SourceId> {
  for (const other of others) {
    if (isSameFiles(source, other) || (mayRead && (await isEqual(source, other)))) return other.id
  }
  const taken = new Set(others.map(({ id }) => id))
  let id = source.id
  for (let n = 2; taken.has(id); n++) id = `${source.id}#${n}`
  return id
}

function isSameFiles(a: Source, b: Source): boolean {
  return [...a.shards].every(([name, shard]) => {
    const other = b.shards.get(name)
    return shard === other || (shard.path !== undefined && shard.path === other?.path)
  })
}

/** Whether all tensors agree bit for bit. What cannot be read any more agrees with nothing. */
async function isEqual(a: Source, b: Source): Promise<boolean> {
  try {
    for (const [name, tensor] of a.tensors) {
      const other = b.tensors.get(name)
      if (!other || !(await isEqualData(dataOf(a, tensor), dataOf(b, other)))) return false
    }
    return a.tensors.size === b.tensors.size
  } catch {
    return false
  }
}

function dataOf(source: Source, { file, begin, end }: StoredTensor): ByteSource {
  return source.shards.get(file)!.slice(begin, end)
}

async function isEqualData(a: ByteSource, b: ByteSource): Promise<boolean> {
  if (a.size !== b.size) return false
  for (let at = 0; at < a.size; at += COMPARE_BYTES) {
    const end = Math.min(at + COMPARE_BYTES, a.size)
    const [x, y] = await Promise.all([a.slice(at, end).arrayBuffer(), b.slice(at, end).arrayBuffer()])
    if (!isEqualBytes(new Uint8Array(x), new Uint8Array(y))) return false
  }
  return true
}

function isEqualBytes(a: Uint8Array, b: Uint8Array): boolean {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return a.length === b.length
}
