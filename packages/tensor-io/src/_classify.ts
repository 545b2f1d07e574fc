import { baseName } from './_names.js'

export const CONFIG = 'config.json'
export const MANIFEST = 'polygraft.json'
export const INDEX = 'model.safetensors.index.json'
export const SINGLE = 'model.safetensors'

/**
 * What a file of a checkpoint's folder is to us. `pickle` and `foreign` are weights in other forms: they would contradict
 * an output's own weights, so they are never carried along.
 */
export type Kind = 'config' | 'manifest' | 'index' | 'safetensors' | 'pickle' | 'foreign' | 'file'

const FOREIGN = /(\.(h5|msgpack|gguf|ggml|onnx|onnx_data|tflite|ot|mlmodel|npz)|\.index\.json)$/

/** The kind of a file by its path relative to the folder. */
export function classify(name: string): Kind {
  if (name === CONFIG) return 'config'
  if (name === MANIFEST) return 'manifest'
  if (name === INDEX) return 'index'
  const base = baseName(name)
  if (base.endsWith('.safetensors')) return 'safetensors'
  if (/\.(bin|pt|pth|ckpt|pkl|pickle)$/.test(base)) return 'pickle'
  return FOREIGN.test(base) ? 'foreign' : 'file'
}
