import { type ByteSource, type JsonObject, ModelError } from '@polygraft/tensor'
import { isJsonObject, parseJson } from './parse-json.js'

/** An index of a million tensors needs less; anything larger is no configuration. Unit: bytes. */
const MAX_JSON_BYTES = 100_000_000

/**
 * A whole source as text.
 * @param file Named in the error.
 * @throws ModelError "bad-utf8".
 */
export async function readText(source: ByteSource, file?: string): Promise<string> {
  return decodeUtf8(new Uint8Array(await source.arrayBuffer()), file)
}

/** Strict UTF-8; a byte order mark is kept, so that a parser can refuse it. */
export function decodeUtf8(bytes: Uint8Array, file?: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    const place = file === undefined ? {} : { file }
    throw new ModelError({ code: 'bad-utf8', message: 'The text is not valid UTF-8', ...place }, { cause })
  }
}

/** A whole source as a JSON object. */
export async function readJsonObject(source: ByteSource, file: string): Promise<JsonObject> {
  return parseJsonObject(await readJsonText(source, file), file)
}

/** A whole source as text, refused when it is too large to be JSON of a checkpoint. */
export async function readJsonText(source: ByteSource, file: string): Promise<string> {
  if (source.size > MAX_JSON_BYTES)
    throw new ModelError({
      code: 'too-large',
      message: 'A JSON file is too large to be one of a checkpoint',
      file,
      expected: `at most ${MAX_JSON_BYTES} bytes`,
      received: `${source.size} bytes`,
    })
  return readText(source, file)
}

/** A JSON text that holds an object. */
export function parseJsonObject(text: string, file: string): JsonObject {
  const value = parseJson(text, file)
  if (isJsonObject(value)) return value
  throw new ModelError({ code: 'bad-json', message: 'The file does not hold a JSON object', file })
}
