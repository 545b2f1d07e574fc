import { type ByteSource, ModelError, numel, type Problem, throwIfAny } from '@polygraft/tensor'
import { formatSafetensors, readSafetensors } from '@polygraft/tensor-io'
import type { Drawn } from './batches.js'
import type { Tensors } from './parameters.js'
import type { Trainer } from './trainer.js'

/** Name of the file beside a checkpoint's weights that training goes on from. Its content is safetensors. */
export const STATE_FILE = 'training.state'

const PARTS = ['value', 'first', 'second'] as const

/**
 * What a run needs to go on besides the checkpoint: trained values in F32 (the checkpoint may be in BF16), moments, steps done, documents
 * drawn.
 */
export function formatTrainingState(trainer: Trainer, drawn: Drawn): Uint8Array {
  const entries = stored(trainer)
  const specs = [...entries].map(
    ([name, { length }]) => [name, { dtype: 'F32' as const, shape: [length] }] as const,
  )
  const metadata = { step: String(trainer.step), drawn: JSON.stringify(drawn) }
  const layout = formatSafetensors(specs, metadata)
  const bytes = new Uint8Array(layout.size)
  bytes.set(layout.header)
  for (const [name, { begin }] of layout.tensors)
    bytes.set(new Uint8Array(Float32Array.from(entries.get(name)!).buffer), begin)
  return bytes
}

/**
 * Puts a saved state into `trainer`, and says what had been drawn.
 * @throws ModelError "shape-mismatch", "missing-tensor", "unexpected-tensor" with every tensor that is not what the trainer trains.
 */
export async function restoreTrainingState(
  trainer: Trainer,
  source: ByteSource,
  file: string,
): Promise<Drawn> {
  const { tensors, metadata } = await readSafetensors(source, file)
  const entries = stored(trainer)
  const problems: Problem[] = []
  for (const name of new Set([...entries.keys(), ...tensors.keys()])) {
    const [expected, received] = [entries.get(name)?.length, tensors.get(name)]
    const size = received && numel(received.shape)
    if (expected === size) continue
    problems.push({
      code:
        expected === undefined
          ? 'unexpected-tensor'
          : size === undefined
            ? 'missing-tensor'
            : 'shape-mismatch',
      message: 'The saved state is of a run that trains something else',
      file,
      tensor: name,
      expected: expected === undefined ? 'nothing' : `${expected} elements`,
      received: size === undefined ? 'nothing' : `${size} elements`,
      next: 'Go on with the model and options that the run was begun with, or begin anew with --force.',
    })
  }
  throwIfAny(problems)
  for (const [name, { begin, end }] of tensors)
    entries.get(name)!.set(new Float32Array(await source.slice(begin, end).arrayBuffer()))
  trainer.step = Number(metadata.step)
  const drawn: unknown = JSON.parse(metadata.drawn ?? 'null')
  if (Number.isSafeInteger(trainer.step) && Array.isArray(drawn)) return drawn as Drawn
  throw new ModelError({ code: 'bad-state', message: 'The saved state does not say how far it is', file })
}

function stored({ values, first, second }: Trainer): Tensors {
  const sets = { value: values, first, second }
  return new Map(
    PARTS.flatMap((part) =>
      [...first.keys()].map((name) => [`${part} ${name}`, sets[part].get(name)!] as const),
    ),
  )
}
