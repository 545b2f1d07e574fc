import { type ByteSource, type Checkpoint, ModelError } from '@polygraft/tensor'
import { openFiles } from '@polygraft/tensor-io'

const INDEX = 'model.safetensors.index.json'
/** What this page uses of a checkpoint, beside its weights. */
const SMALL_FILES = [
  'config.json',
  'generation_config.json',
  'polygraft.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'chat_template.jinja',
]

/**
 * Opens a checkpoint by fetching its files as a whole, for servers that cannot send parts; the browser keeps them.
 * @throws ModelError 'missing-file', 'http-status', 'network', and as `openFiles`.
 */
export async function openWhole(url: string): Promise<Checkpoint> {
  const asked = new URL(url)
  const single = /\/([^/]+\.safetensors)$/.exec(asked.pathname)?.[1]
  const folder =
    single === undefined ? `${asked.pathname.replace(/\/+$/, '')}/` : asked.pathname.slice(0, -single.length)
  const files = new Map<string, ByteSource>()
  const take = async (name: string) => {
    const file = await fetchWhole(new URL(`${folder}${name}${asked.search}`, asked))
    if (file) files.set(decodeURIComponent(name), file)
    return file
  }
  const index = single === undefined ? await take(INDEX) : undefined
  const { weight_map = {} } = index
    ? (JSON.parse(await index.text()) as { weight_map?: Record<string, string> })
    : {}
  const weights = new Set(index ? Object.values(weight_map) : [single ?? 'model.safetensors'])
  for (const name of [...SMALL_FILES, ...weights]) await take(name)
  return openFiles(files, asked.origin + asked.pathname)
}

async function fetchWhole(url: URL): Promise<Blob | undefined> {
  const location = url.origin + url.pathname
  try {
    const response = await fetch(url)
    if (response.status === 404 || response.status === 410) return undefined
    if (response.ok) return await response.blob()
    const received = `status ${response.status}`
    throw new ModelError({ code: 'http-status', message: 'The server refused', file: location, received })
  } catch (cause) {
    if (cause instanceof ModelError) throw cause
    throw new ModelError(
      { code: 'network', message: 'The server cannot be reached', file: location },
      { cause },
    )
  }
}
