import { type Checkpoint, type JsonObject, type JsonValue, ModelError } from '@polygraft/tensor'
import { type LoraConfig, parseLoraConfig } from './lora-config.js'

/** A LoRA adapter as peft saves it: its tensors, and what its configuration says of them. */
export interface Adapter {
  /** Tensors under peft's names, `base_model.model.<module>.lora_A.weight`. */
  readonly checkpoint: Checkpoint
  readonly config: LoraConfig
}

/** Name of the configuration in an adapter's folder. */
export const ADAPTER_CONFIG_FILE = 'adapter_config.json'

/**
 * The adapter in an opened folder that holds `adapter_config.json` and `adapter_model.safetensors`.
 * @throws ModelError "not-an-adapter", "bad-json"; and as `parseLoraConfig`.
 */
export async function readAdapter(checkpoint: Checkpoint): Promise<Adapter> {
  const file = checkpoint.files.get(ADAPTER_CONFIG_FILE)
  if (!file)
    throw new ModelError({
      code: 'not-an-adapter',
      message: 'There is no adapter_config.json beside the weights',
      file: [...checkpoint.sources.values()].map(({ location }) => location).join(', '),
      expected: 'a folder that peft saved: adapter_config.json and adapter_model.safetensors',
      next: 'Is it a whole checkpoint? Then merge it as a model.',
    })
  const text = new TextDecoder().decode(await file.arrayBuffer())
  return { checkpoint, config: parseLoraConfig(parse(text)) }
}

function parse(text: string): JsonObject {
  let value: JsonValue
  try {
    value = JSON.parse(text) as JsonValue
  } catch (cause) {
    throw new ModelError(
      {
        code: 'bad-json',
        message: 'The configuration is no JSON',
        file: ADAPTER_CONFIG_FILE,
        received: String(cause),
      },
      { cause },
    )
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  throw new ModelError({
    code: 'bad-json',
    message: 'The configuration is no JSON object',
    file: ADAPTER_CONFIG_FILE,
    received: text.slice(0, 60),
  })
}
