import { z } from 'zod'

/** A place of a checkpoint, as a recipe writes it: a path, an address, or org/name of the Hub. */
export interface ModelLocation {
  readonly path: string
  readonly revision?: string
}

/** A model that a recipe refers to, perhaps with an adapter on it. */
export interface ModelReference {
  readonly model: ModelLocation
  readonly lora?: ModelLocation
}

const location = z.union(
  [z.string().min(1), z.strictObject({ path: z.string().min(1), revision: z.string().nullish() })],
  { error: 'a path, or {path, revision}' },
)

/** mergekit's way to name a model: `path`, `path@revision`, `model+lora`, or spelt out. */
export const referenceSchema = z.union(
  [
    z.string().min(1),
    z.strictObject({
      model: location,
      lora: location.nullish(),
      override_architecture: z.string().nullish(),
    }),
    z.strictObject({ path: z.string().min(1), revision: z.string().nullish() }),
  ],
  { error: 'a model: path, path@revision, model+lora, or {model, lora}' },
)

/** A reference as it stands in a recipe. */
export type WrittenReference = z.infer<typeof referenceSchema>

/** What a written reference means; undefined where it has more than one `+` or `@`. */
export function parseReference(written: WrittenReference): ModelReference | undefined {
  if (typeof written !== 'string') {
    if (!('model' in written)) return { model: locationOf(written)! }
    const model = locationOf(written.model)
    const lora = written.lora ? locationOf(written.lora) : undefined
    if (!model || (written.lora && !lora)) return undefined
    return { model, ...(lora ? { lora } : {}) }
  }
  const parts = written.split('+').map(locationOf)
  const [model, lora] = parts
  if (parts.length > 2 || !model || parts.includes(undefined)) return undefined
  return { model, ...(lora ? { lora } : {}) }
}

function locationOf(written: z.infer<typeof location>): ModelLocation | undefined {
  if (typeof written !== 'string')
    return { path: written.path, ...(written.revision ? { revision: written.revision } : {}) }
  const [path, revision, ...rest] = isAddress(written) ? [written] : written.split('@')
  if (!path || revision === '' || rest.length > 0) return undefined
  return { path, ...(revision ? { revision } : {}) }
}

function isAddress(text: string): boolean {
  return /^(https?:|hf:)/.test(text)
}

/** One text for one model, as mergekit writes it. */
export function formatReference({ model, lora }: ModelReference): string {
  const text = ({ path, revision }: ModelLocation) => (revision ? `${path}@${revision}` : path)
  return lora ? `${text(model)}+${text(lora)}` : text(model)
}
