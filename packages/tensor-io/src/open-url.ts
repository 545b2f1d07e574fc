import { type ByteSource, type Checkpoint, ModelError } from '@polygraft/tensor'
import { assemble } from './_assemble.js'
import { CONFIG, INDEX, MANIFEST, SINGLE } from './_classify.js'
import { mapConcurrently } from './_concurrent.js'
import { type HttpOptions, withoutQuery } from './_http.js'
import { baseName } from './_names.js'
import { headerId } from './_source-id.js'
import { parseWeightMap } from './_weights.js'
import { findHttpSource } from './http-source.js'
import { HEAD_BYTES } from './parse-safetensors.js'
import { readJsonObject } from './read-text.js'

const REQUESTS_AT_ONCE = 6
/** A configuration fits; of a tokenizer it is a beginning that is not missed. Unit: bytes. */
const SMALL_HEAD_BYTES = 16 * 1024
/** A web server lists no folder, so these names are tried: what model repositories hold beside weights and config. */
const KNOWN_FILES = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'LICENSE',
  'README.md',
]
/** What peft saves: an adapter's configuration, and its weights in place of a model's. */
const ADAPTER_CONFIG = 'adapter_config.json'
const ADAPTER = 'adapter_model.safetensors'

type Found = { readonly source: ByteSource; readonly etag: string | undefined }

/**
 * Opens a checkpoint behind an `https:` (or `http:`) URL: one safetensors file, or the folder that holds one, such as
 * `https://huggingface.co/<org>/<name>/resolve/main`. One request for each file; no tensor data beyond what comes with
 * the headers. A query is sent with every request.
 *
 * @throws ModelError "bad-url", and as `httpSource` and `openFiles`.
 */
export async function openUrl(url: string, options: HttpOptions = {}): Promise<Checkpoint> {
  const base = parseUrl(url)
  const location = withoutQuery(url)
  const single = base.pathname.endsWith('.safetensors')
  const found = single ? await findFile(base, options) : await findFolder(base, options)
  const files = new Map([...found].map(([name, { source }]) => [name, source]))
  // The ETags tell versions of one location apart.
  const etags = [...found].map(([name, { etag }]) => `${name} ${etag}`)
  return assemble(files, location, async (source) => ({
    ...source,
    id: await headerId(source, [location, ...etags].join('\n')),
  }))
}

function parseUrl(url: string): URL {
  const parsed = URL.canParse(url) ? new URL(url) : undefined
  if (parsed?.protocol === 'https:' || parsed?.protocol === 'http:') return parsed
  throw new ModelError({
    code: 'bad-url',
    message: 'This is no web address',
    received: url,
    expected: 'https://…',
  })
}

async function findFile(url: URL, options: HttpOptions): Promise<ReadonlyMap<string, Found>> {
  const name = decodeURIComponent(baseName(url.pathname))
  const folder = new URL(url)
  folder.pathname = url.pathname.slice(0, url.pathname.lastIndexOf('/'))
  const found = await findAll(folder, [name, CONFIG], HEAD_BYTES, options)
  if (found.has(name)) return found
  throw new ModelError({
    code: 'missing-file',
    message: 'There is nothing at this URL',
    file: withoutQuery(url.href),
  })
}

async function findFolder(folder: URL, options: HttpOptions): Promise<ReadonlyMap<string, Found>> {
  const small = await findAll(
    folder,
    [INDEX, CONFIG, MANIFEST, ADAPTER_CONFIG, ...KNOWN_FILES],
    SMALL_HEAD_BYTES,
    options,
  )
  const index = small.get(INDEX)
  const shards = index
    ? new Set(parseWeightMap(await readJsonObject(index.source, INDEX)).values())
    : [SINGLE, ...(small.has(ADAPTER_CONFIG) ? [ADAPTER] : [])]
  return new Map([...small, ...(await findAll(folder, [...shards], HEAD_BYTES, options))])
}

async function findAll(
  folder: URL,
  names: readonly string[],
  headBytes: number,
  options: HttpOptions,
): Promise<ReadonlyMap<string, Found>> {
  const found = await mapConcurrently(names, REQUESTS_AT_ONCE, async (name) => {
    const file = await findHttpSource(urlOf(folder, name), options, headBytes)
    return file ? ([[name, file]] as const) : []
  })
  return new Map(found.flat())
}

function urlOf(folder: URL, name: string): string {
  const url = new URL(folder)
  const path = name.split('/').map(encodeURIComponent).join('/')
  url.pathname = `${folder.pathname.replace(/\/+$/, '')}/${path}`
  return url.href
}
