import { type ByteSource, type Checkpoint, type Source, stateDictOf } from '@polygraft/tensor'
import { CONFIG, classify, MANIFEST } from './_classify.js'
import { parseProvenance } from './_provenance.js'
import { readWeights } from './_weights.js'
import { floatFieldsOf } from './format-config.js'
import { parseJsonObject, readJsonText } from './read-text.js'

/** A checkpoint from its files; `identify` gives its source the id that everything else refers to. */
export async function assemble(
  files: ReadonlyMap<string, ByteSource>,
  location: string,
  identify: (source: Omit<Source, 'id'>) => Promise<Source>,
): Promise<Checkpoint> {
  const weights = await readWeights(files, location)
  const texts = await Promise.all([readOptional(files, CONFIG), readOptional(files, MANIFEST)])
  const [configText = '{}', manifestText] = texts
  const config = parseJsonObject(configText, CONFIG)
  const provenance = parseProvenance(
    manifestText === undefined ? undefined : parseJsonObject(manifestText, MANIFEST),
  )
  const source = await identify({ location, ...weights })
  return {
    config,
    floatFields: floatFieldsOf(configText),
    tensors: stateDictOf(source),
    files: new Map([...files].filter(([name]) => classify(name) === 'file')),
    sources: new Map([[source.id, source]]),
    provenance,
  }
}

async function readOptional(files: ReadonlyMap<string, ByteSource>, name: string) {
  const source = files.get(name)
  return source && readJsonText(source, name)
}
