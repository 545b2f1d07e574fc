import type { DecoderSpec, LayerSpec, LinearSpec, MlpSpec } from './decoder-spec.js'
import type { Floats } from './matmul.js'

/** Tensors in memory by name, each row-major. */
export type Tensors = ReadonlyMap<string, Floats>

/** A vector of the model with its gradient, where it is trained. */
export interface Vector {
  readonly value: Floats
  readonly gradient?: Floats
}

/** y = x weight^T + bias */
export interface Linear {
  readonly out: number
  readonly in: number
  readonly weight: Vector
  readonly bias?: Vector
}

export interface Mlp {
  readonly gate: Linear
  readonly up: Linear
  readonly down: Linear
}

export interface Layer {
  readonly window: number
  readonly attentionNorm: Vector
  readonly q: Linear
  readonly k: Linear
  readonly v: Linear
  readonly o: Linear
  readonly qNorm?: Vector
  readonly kNorm?: Vector
  readonly ffnNorm: Vector
  readonly mlp?: Mlp
  readonly router?: Linear
  readonly experts?: readonly Mlp[]
  readonly shared?: Mlp & { readonly scale: Linear }
}

/** The decoder's parts over the memory of its weights and gradients. */
export interface Parameters {
  readonly embedding: Vector
  readonly layers: readonly Layer[]
  readonly finalNorm: Vector
  readonly head: Linear
}

/** Binds the parts of `spec` to their values, and those of them that are in `gradients` to their gradients. */
export function bindParameters(spec: DecoderSpec, values: Tensors, gradients: Tensors): Parameters {
  const vector = (name: string): Vector => {
    const gradient = gradients.get(name)
    return { value: values.get(name)!, ...(gradient ? { gradient } : {}) }
  }
  const linear = ({ weight, bias, out, in: width }: LinearSpec): Linear => ({
    out,
    in: width,
    weight: vector(weight),
    ...(bias === undefined ? {} : { bias: vector(bias) }),
  })
  const mlp = ({ gate, up, down }: MlpSpec): Mlp => ({
    gate: linear(gate),
    up: linear(up),
    down: linear(down),
  })
  const layer = (each: LayerSpec): Layer => ({
    window: each.window ?? Number.POSITIVE_INFINITY,
    attentionNorm: vector(each.attentionNorm),
    q: linear(each.q),
    k: linear(each.k),
    v: linear(each.v),
    o: linear(each.o),
    ...(each.qNorm ? { qNorm: vector(each.qNorm), kNorm: vector(each.kNorm!) } : {}),
    ffnNorm: vector(each.ffnNorm),
    ...(each.mlp ? { mlp: mlp(each.mlp) } : {}),
    ...(each.router ? { router: linear(each.router), experts: each.experts!.map(mlp) } : {}),
    ...(each.shared ? { shared: { ...mlp(each.shared), scale: linear(each.shared.scale) } } : {}),
  })
  return {
    embedding: vector(spec.embedding),
    layers: spec.layers.map(layer),
    finalNorm: vector(spec.finalNorm),
    head: linear(spec.head),
  }
}
