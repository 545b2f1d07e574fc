import {
  dimensionsOf,
  expectedTensors,
  type Family,
  familyOf,
  nameOf,
  type Part,
  type Role,
  roleOf,
} from '@polygraft/architectures'
import { type Expr, type JsonObject, scale } from '@polygraft/tensor'
import { keptNeurons, redrawnCount } from './_neurons.js'
import type { Expansion } from './expansion.js'

// Letters: H hidden, I intermediate of the dense block, E copies, g parts of each.

/** What a tensor of the larger model is made of, one after the other: a dense tensor, and what is done to it. */
export interface Piece {
  /** The dense tensor's name. */
  readonly dense: string
  /** Of an expert's matrix: the shape in the dense model, and which way its neurons lie: [I, H] in rows or [H, I] in columns. */
  readonly matrix?: { readonly shape: readonly [number, number]; readonly neurons: 'rows' | 'columns' }
  /** The copy of the block that the piece belongs to. Undefined for everything that is there once. */
  readonly copy?: number
  /** Which part of its copy it is, and of how many. */
  readonly part: number
  readonly parts: number
  /** Factor of its values. */
  readonly factor: number
  /** A mask of the dense tensor's shape, not 0 where entries are kept. Undefined: all are. */
  readonly kept?: Expr
  /** Names the piece's own noise. */
  readonly name: string
}

/** Two families, a config of each, and how one came from the other. */
export interface Layout {
  readonly family: Family
  readonly dense: Family
  readonly expansion: Expansion
  readonly numExperts: number
  readonly hiddenSize: number
  /** Of a whole expert, I. */
  readonly intermediateSize: number
  /** The tensors that a dense model of that config has. */
  readonly denseNames: ReadonlySet<string>
  /** Masks by layer and copy, so that matrices share them. */
  readonly masks: Map<string, Expr>
}

/** @throws ModelError "unsupported-family", "bad-config". */
export function layoutOf(config: JsonObject, denseConfig: JsonObject, expansion: Expansion): Layout {
  const [family, dense] = [familyOf(config), familyOf(denseConfig)]
  const { numExperts, hiddenSize, expertIntermediateSize } = dimensionsOf(family, config)
  const denseNames = new Set(expectedTensors(dense, denseConfig).keys())
  return {
    family,
    dense,
    expansion,
    numExperts,
    hiddenSize,
    intermediateSize: expertIntermediateSize * expansion.granularity,
    denseNames,
    masks: new Map(),
  }
}

/**
 * The pieces of tensor `name`, in order; none for what no dense tensor is the origin of: routers, placeholders, biases
 * that the dense family does not have, inserted layers, unknown names.
 */
export function piecesOf(layout: Layout, name: string): readonly Piece[] {
  const { family, expansion } = layout
  const role = roleOf(family, name)
  const origin = originOf(expansion, role)
  if (!origin) return []
  if (role.group === 'shared_expert')
    return expansion.sharedExpert === 'derived' ? wholePiece(layout, { ...origin, group: 'ffn' }, name) : []
  if (role.group !== 'expert') return wholePiece(layout, origin, name)
  const experts =
    role.expert === undefined ? Array.from({ length: layout.numExperts }, (_, e) => e) : [role.expert]
  const parts: readonly Matrix[] = role.part === 'gate_up' ? ['gate', 'up'] : [role.part as Matrix]
  const isFused = experts.length * parts.length > 1
  return experts.flatMap((expert) =>
    parts.map((part) =>
      expertPiece(layout, origin.layer!, expert, part, isFused ? `${name} ${expert} ${part}` : name),
    ),
  )
}

/**
 * The dense tensor that a tensor of an inserted layer copies, that of the last original layer before it, and whether it is
 * zero instead: what attention and feed-forward block add must be nothing. Undefined elsewhere.
 */
export function insertedFrom(
  { family, dense, expansion }: Layout,
  name: string,
): { readonly dense: string; readonly isZero: boolean } | undefined {
  const role = roleOf(family, name)
  const { layers } = expansion
  if (!layers || role.layer === undefined || layers[role.layer] !== null) return undefined
  const layer = layers.slice(0, role.layer).findLast((each) => each !== null)
  const found = nameOf(dense, { ...role, ...(typeof layer === 'number' ? { layer } : {}) })
  return found === undefined ? undefined : { dense: found, isZero: OUTPUTS.has(role.part) }
}

const OUTPUTS: ReadonlySet<Part | undefined> = new Set(['o', 'o_bias', 'down', 'down_bias'] as const)

type Matrix = Extract<Part, 'gate' | 'up' | 'down'>

/** The role in the dense model's layer; undefined in an inserted one. */
function originOf({ layers }: Expansion, role: Role): Role | undefined {
  if (!layers || role.layer === undefined) return role
  const layer = layers[role.layer] ?? undefined
  return layer === undefined ? undefined : { ...role, layer }
}

/** A dense tensor as it is. */
function wholePiece({ dense, denseNames }: Layout, role: Role, name: string): readonly Piece[] {
  const found = nameOf(dense, role)
  if (found === undefined || (role.part?.endsWith('_bias') && !denseNames.has(found))) return []
  return [{ dense: found, part: 0, parts: 1, factor: 1, name }]
}

function expertPiece(layout: Layout, layer: number, expert: number, matrix: Matrix, name: string): Piece {
  const { expansion, dense, intermediateSize: I, hiddenSize: H } = layout
  const { granularity, drop, routedFactor } = expansion
  const copy = Math.floor(expert / granularity)
  const isDown = matrix === 'down'
  const found = nameOf(dense, { group: 'ffn', part: matrix, layer })!
  return {
    dense: found,
    matrix: isDown ? { shape: [H, I], neurons: 'columns' } : { shape: [I, H], neurons: 'rows' },
    copy,
    part: expert % granularity,
    parts: granularity,
    // A gate that renormalises over k copies of g parts gives each part a g-th of its copy's weight.
    factor: isDown ? granularity * routedFactor : 1,
    ...(drop && copy > 0 && redrawnCount(I, drop.rate) > 0
      ? { kept: maskOf(layout, layer, copy, isDown) }
      : {}),
    name,
  }
}

/** One set of neurons for the three matrices of a block. */
function maskOf(layout: Layout, layer: number, copy: number, isDown: boolean): Expr {
  const { expansion, dense, intermediateSize: I, hiddenSize: H, masks } = layout
  const { rate, seed } = expansion.drop!
  const key = `${nameOf(dense, { group: 'ffn', part: 'gate', layer })} neurons of copy ${copy}`
  const neurons = masks.get(key) ?? keptNeurons(I, rate, seed, key)
  masks.set(key, neurons)
  const shape = `${key} ${isDown}`
  const mask: Expr = masks.get(shape) ?? {
    op: 'spread',
    arg: neurons,
    count: I,
    each: isDown ? 1 : H,
    times: isDown ? H : 1,
  }
  masks.set(shape, mask)
  return mask
}

/**
 * The piece of dense values `x`: cut and scaled. Entries that are drawn anew are those of `off`, or of `x` where that is left
 * out. Linear in x where `off` is 0, and so what is done to a difference. Equal arguments give the same object, so that what
 * copies share is computed once.
 */
export function pieceExpr(piece: Piece, x: Expr, off?: Expr): Expr {
  return cutExpr(piece, piece.kept && off ? { op: 'select', mask: piece.kept, on: x, off } : x)
}

const cuts = new WeakMap<Expr, Map<string, Expr>>()

/** The piece's part of a whole matrix, times its factor. */
function cutExpr(piece: Piece, x: Expr): Expr {
  const { part, parts, factor, matrix } = piece
  if (!matrix || (parts === 1 && factor === 1)) return x
  const key = JSON.stringify([part, parts, factor, matrix])
  const known = cuts.get(x) ?? new Map<string, Expr>()
  cuts.set(x, known)
  const made = known.get(key) ?? scale(factor, parts === 1 ? x : partOf(piece, matrix, x))
  known.set(key, made)
  return made
}

/** Neurons [part * I / parts, (part + 1) * I / parts): rows of gate and up, columns of down. */
function partOf({ part, parts }: Piece, { shape, neurons }: NonNullable<Piece['matrix']>, arg: Expr): Expr {
  const [rows, width] = shape
  const size = (neurons === 'rows' ? rows : width) / parts
  if (neurons === 'rows') return { op: 'rows', arg, width, runs: [[part * size, size]] }
  return { op: 'columns', arg, width, begin: part * size, end: (part + 1) * size }
}
