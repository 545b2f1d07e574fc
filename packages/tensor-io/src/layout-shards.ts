import { byteSize, ModelError, numel } from '@polygraft/tensor'
import { compareCodePoints } from './_names.js'
import { formatSafetensors, type SafetensorsLayout, type TensorSpec } from './format-safetensors.js'

/** One file of a checkpoint's weights, before its data. */
export interface ShardLayout extends SafetensorsLayout {
  readonly file: string
}

type Named = readonly [string, TensorSpec]

/**
 * Splits tensors over files as `save_pretrained` does (huggingface_hub, `split_state_dict_into_shards_factory`): in
 * their order, a new shard whenever the next tensor would not fit, a larger one in a shard of its own. One file is
 * `model.safetensors`, several are `model-00001-of-00003.safetensors` and so on.
 *
 * @param maxShardBytes Limit of a shard's tensor data; the header comes on top.
 * @param metadata Each shard's `__metadata__`. Transformers asks for a `format`, so that is the default.
 * @param stem What the files' names begin with.
 * @throws ModelError "bad-name", "bad-shape" as `formatSafetensors`; "bad-shard-size".
 */
export function layoutShards(
  tensors: Iterable<Named>,
  maxShardBytes: number,
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
  stem = 'model',
): readonly ShardLayout[] {
  if (!(maxShardBytes >= 1))
    throw new ModelError({
      code: 'bad-shard-size',
      message: 'The size limit of a shard is not positive',
      received: `${maxShardBytes} bytes`,
    })
  const all = [...tensors]
  // The writer below finds a name twice in one shard only.
  if (new Set(all.map(([name]) => name)).size < all.length) formatSafetensors(all)
  const shards = split(all, maxShardBytes)
  return shards.map((shard, i) => ({
    file: shardName(stem, i, shards.length),
    ...formatSafetensors(shard, metadata),
  }))
}

/**
 * `model.safetensors.index.json` for several shards, formatted as `save_pretrained` does: keys sorted, two spaces, a line
 * feed at the end.
 */
export function formatIndex(layouts: readonly ShardLayout[]): string {
  const entries = layouts.flatMap(({ file, tensors }) =>
    [...tensors.keys()].map((name) => [name, file] as const),
  )
  entries.sort(([a], [b]) => compareCodePoints(a, b))
  const total = layouts.reduce((sum, { header, size }) => sum + size - header.length, 0)
  const lines = entries.map(([name, file]) => `    ${quoteAscii(name)}: ${quoteAscii(file)}`)
  const map = lines.length > 0 ? `{\n${lines.join(',\n')}\n  }` : '{}'
  return `{\n  "metadata": {\n    "total_size": ${total}\n  },\n  "weight_map": ${map}\n}\n`
}

function split(tensors: readonly Named[], maxShardBytes: number): readonly Named[][] {
  const shards: Named[][] = []
  let open: Named[] = []
  let openBytes = 0
  for (const tensor of tensors) {
    const bytes = byteSize(tensor[1].dtype, numel(tensor[1].shape))
    if (bytes > maxShardBytes) {
      // As the reference does: numbered at once, before the shard that is still open.
      shards.push([tensor])
      continue
    }
    if (openBytes + bytes > maxShardBytes) {
      shards.push(open)
      open = []
      openBytes = 0
    }
    open.push(tensor)
    openBytes += bytes
  }
  if (open.length > 0 || shards.length === 0) shards.push(open)
  return shards
}

function shardName(stem: string, i: number, count: number): string {
  const five = (n: number) => String(n).padStart(5, '0')
  return count === 1 ? `${stem}.safetensors` : `${stem}-${five(i + 1)}-of-${five(count)}.safetensors`
}

/** A JSON string as Python's `json.dumps` writes it: everything beyond printable ASCII escaped. */
function quoteAscii(text: string): string {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, escaped)
}
