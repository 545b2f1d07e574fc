import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { openTokenizer } from '@polygraft/model'
import { type Checkpoint, ModelError, type Problem, throwIfAny } from '@polygraft/tensor'
import { fsError } from '@polygraft/tensor-io/node'
import { encodeDocuments, type LanguageData, parseDocuments } from '@polygraft/train'

/** `--data el=a.txt` */
export interface DataArgument {
  readonly language: string
  readonly file: string
}

export interface DataOptions {
  readonly context: number
  readonly cut: boolean
  readonly vocabularySize: number
  readonly mix: ReadonlyMap<string, number>
  /** Original languages; undefined for those that no expert is labelled with. */
  readonly original: readonly string[] | undefined
}

/** What a run learns from, by language, and a digest of each file. */
export interface TrainingData {
  readonly languages: readonly LanguageData[]
  readonly digests: Readonly<Record<string, string>>
}

/**
 * Reads and encodes all data files with the checkpoint's tokenizer. Several files may be of one language.
 * @throws ModelError with every broken line, long document and unknown token of all files; "no-data" for a language of --mix or --original
 *   without a file.
 */
export async function readTrainingData(
  checkpoint: Checkpoint,
  files: readonly DataArgument[],
  options: DataOptions,
): Promise<TrainingData> {
  const { mix, original } = options
  const languages = [...new Set(files.map(({ language }) => language))]
  throwIfAny([...mix.keys(), ...(original ?? [])].filter((l) => !languages.includes(l)).map(withoutData))
  const encoder = await openTokenizer(checkpoint)
  const problems: Problem[] = []
  const digests: Record<string, string> = {}
  const read = await Promise.all(
    files.map(async ({ language, file }) => {
      try {
        const content = await readFile(file, 'utf8')
        digests[`${language}=${file}`] = createHash('sha256').update(content).digest('hex')
        return {
          language,
          sequences: encodeDocuments(parseDocuments(content, file), encoder, { file, ...options }),
        }
      } catch (error) {
        const known = fsError(error, 'The data cannot be read', file)
        if (!(known instanceof ModelError)) throw known
        problems.push(...known.problems)
        return { language, sequences: [] }
      }
    }),
  )
  throwIfAny(problems)
  const labels = checkpoint.provenance.experts ?? []
  const found = languages.map((language): LanguageData => {
    const own = labels.flatMap((label, e) => (label === language ? [e] : []))
    const isOriginal = original ? original.includes(language) : labels.length > 0 && own.length === 0
    const experts = own.length > 0 ? own : isOriginal ? [0] : undefined
    return {
      language,
      sequences: read.filter((each) => each.language === language).flatMap(({ sequences }) => sequences),
      weight: mix.get(language) ?? 1,
      isOriginal,
      ...(experts ? { experts } : {}),
    }
  })
  throwIfAny(
    found.filter(({ sequences }) => sequences.length === 0).map(({ language }) => withoutData(language)),
  )
  return { languages: found, digests: Object.fromEntries(Object.entries(digests).sort()) }
}

function withoutData(language: string): Problem {
  return {
    code: 'no-data',
    message: 'A language has nothing to learn from',
    expected: `--data ${language}=<file> with at least one document of two tokens`,
    received: `no document in ${language}`,
  }
}
