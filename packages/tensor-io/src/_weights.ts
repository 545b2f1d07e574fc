import {
  type ByteSource,
  type JsonObject,
  ModelError,
  type Problem,
  type StoredTensor,
  throwIfAny,
} from '@polygraft/tensor'
import { classify, INDEX, SINGLE } from './_classify.js'
import { mapConcurrently } from './_concurrent.js'
import { compareCodePoints, isInside } from './_names.js'
import { isJsonObject } from './parse-json.js'
import { readSafetensors } from './parse-safetensors.js'
import { readJsonObject } from './read-text.js'

const HEADERS_AT_ONCE = 8

/** A checkpoint's safetensors files and everything in them. */
export interface Weights {
  readonly shards: ReadonlyMap<string, ByteSource>
  readonly tensors: ReadonlyMap<string, StoredTensor>
}

/** Finds and reads the headers of the weights among `files`: sharded by index, `model.safetensors`, or the only other. */
export async function readWeights(
  files: ReadonlyMap<string, ByteSource>,
  location: string,
): Promise<Weights> {
  const index = files.get(INDEX)
  if (index) return readSharded(parseWeightMap(await readJsonObject(index, INDEX)), files)
  const name = singleFile(files, location)
  const shards = new Map([[name, files.get(name)!]])
  return { shards, tensors: (await readSafetensors(files.get(name)!, name)).tensors }
}

/**
 * Tensor name → file of an index.
 * @throws ModelError "bad-index"; "path-escape" with all entries that leave the folder.
 */
export function parseWeightMap(index: JsonObject): ReadonlyMap<string, string> {
  const map = index.weight_map
  if (!isJsonObject(map) || Object.keys(map).length === 0)
    throw new ModelError({ code: 'bad-index', message: 'The index has no weight_map', file: INDEX })
  const entries = Object.entries(map)
  throwIfAny(entries.flatMap(([tensor, file]) => (typeof file === 'string' ? [] : [notAName(tensor, file)])))
  const named = entries as [string, string][]
  throwIfAny(firstOfEach(named).flatMap(([tensor, file]) => (isInside(file) ? [] : [escapes(tensor, file)])))
  const wrong = firstOfEach(named).filter(([, file]) => classify(file) !== 'safetensors')
  throwIfAny(wrong.map(([tensor, file]) => notAName(tensor, file)))
  return new Map(named)
}

/** One entry for each file: a wrong file is one problem, not one for each of its tensors. */
function firstOfEach(entries: readonly [string, string][]): [string, string][] {
  const seen = new Set<string>()
  return entries.filter(([, file]) => !seen.has(file) && seen.add(file))
}

function notAName(tensor: string, file: unknown): Problem {
  return {
    code: 'bad-index',
    message: 'The weight_map names no safetensors file for a tensor',
    file: INDEX,
    tensor,
    received: JSON.stringify(file),
  }
}

function escapes(tensor: string, file: string): Problem {
  return {
    code: 'path-escape',
    message: 'The weight_map leaves the folder of the checkpoint',
    file: INDEX,
    tensor,
    expected: 'a relative path with forward slashes, inside of the folder',
    received: JSON.stringify(file),
  }
}

async function readSharded(
  weightMap: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, ByteSource>,
): Promise<Weights> {
  const names = [...new Set(weightMap.values())].sort(compareCodePoints)
  refuseTwoModels(names, files)
  throwIfAny(names.filter((name) => !files.has(name)).map(missingShard))
  const headers = await mapConcurrently(names, HEADERS_AT_ONCE, (name) =>
    readSafetensors(files.get(name)!, name),
  )
  const tensors = new Map<string, StoredTensor>()
  const problems: Problem[] = []
  for (const header of headers) {
    for (const [name, stored] of header.tensors) {
      problems.push(...checkAgainstIndex(name, stored, weightMap.get(name), tensors.get(name)))
      tensors.set(name, stored)
    }
  }
  for (const [tensor, file] of weightMap) {
    if (!tensors.has(tensor))
      problems.push({
        code: 'missing-tensor',
        message: 'The index names a tensor that its shard lacks',
        file,
        tensor,
      })
  }
  throwIfAny(problems)
  return { shards: new Map(names.map((name) => [name, files.get(name)!])), tensors }
}

function checkAgainstIndex(
  tensor: string,
  { file }: StoredTensor,
  indexed: string | undefined,
  earlier: StoredTensor | undefined,
): Problem[] {
  if (earlier) {
    const message = 'Two shards hold one tensor'
    return [{ code: 'duplicate-tensor', message, tensor, received: `${earlier.file} and ${file}` }]
  }
  if (indexed === file) return []
  const message = 'The index does not place a tensor where it is'
  return [
    { code: 'unindexed-tensor', message, tensor, expected: indexed ?? 'no such tensor', received: file },
  ]
}

function missingShard(file: string): Problem {
  return {
    code: 'missing-shard',
    message: 'The index names a file that is not there',
    file,
    next: 'Download the checkpoint again, or copy the missing file into its folder.',
  }
}

/** An index beside an unrelated `model.safetensors`: one of them is stale, and nothing tells which. */
function refuseTwoModels(shards: readonly string[], files: ReadonlyMap<string, ByteSource>): void {
  if (files.has(SINGLE) && !shards.includes(SINGLE)) throw ambiguous([SINGLE, INDEX])
}

function singleFile(files: ReadonlyMap<string, ByteSource>, location: string): string {
  if (files.has(SINGLE)) return SINGLE
  const found = [...files.keys()].filter((name) => classify(name) === 'safetensors' && !name.includes('/'))
  if (found.length === 1) return found[0]!
  if (found.length > 1) throw ambiguous(found)
  const pickles = [...files.keys()].filter((name) => classify(name) === 'pickle')
  throw pickles.length > 0 ? onlyPickle(pickles, location) : noWeights(location)
}

function ambiguous(names: readonly string[]): ModelError {
  return new ModelError({
    code: 'ambiguous-weights',
    message: 'The folder holds several sets of weights',
    expected: `${INDEX}, or ${SINGLE}, or a single safetensors file`,
    received: names.join(', '),
    next: 'Remove those that do not belong to the model, or open one file by its own path.',
  })
}

function onlyPickle(names: readonly string[], location: string): ModelError {
  return new ModelError(
    names.map((file) => ({
      code: 'pickle',
      message: 'The weights are pickled, and reading pickle runs code from the file',
      file,
      expected: 'safetensors',
      next: `Convert: python -c "from transformers import AutoModelForCausalLM as M; M.from_pretrained('${location}', dtype='auto').save_pretrained('converted')", and copy the tokenizer's files.`,
    })),
  )
}

function noWeights(location: string): ModelError {
  return new ModelError({
    code: 'no-weights',
    message: 'There are no safetensors files here',
    expected: `${INDEX}, or ${SINGLE}, or a single safetensors file`,
    received: location,
  })
}
