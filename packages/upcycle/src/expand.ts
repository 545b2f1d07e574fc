import {
  dimensionsOf,
  expandedConfig,
  expectedTensors,
  familyOf,
  tensorProblems,
} from '@polygraft/architectures'
import { constant, insertedFrom, insertedLayers, layoutOf, piecesOf, readExpansion } from '@polygraft/experts'
import {
  type Allowed,
  allowedTensors,
  type Checkpoint,
  type JsonObject,
  ModelError,
  numel,
  type Op,
  type Problem,
  type Skipped,
  type StateDict,
  sourceIds,
  type Tensor,
  throwIfAny,
  withoutAllowed,
} from '@polygraft/tensor'
import { HOLDS_DELTA } from './upcycle-problems.js'

export interface ExpandOptions {
  /**
   * Layers to insert. With L layers in n groups of equal size, as nearly as they can be, one follows each group (LLaMA Pro,
   * section 3.2); above L, several follow each other.
   */
  readonly blocks: number
  /** Tensors of the input that the result has no place for, and that are left out on purpose. */
  readonly allow?: readonly Allowed[]
}

// As many as a config may have.
const MAX_LAYERS = 10_000

/**
 * Depth expansion (LLaMA Pro, Wu et al., arXiv:2401.02415): copies of layers are inserted whose output projections, of attention and of
 * the feed-forward block, are zero, so that they add nothing to the residual stream and the model computes what it did. Training
 * then goes to the inserted layers alone. Each copies the layer before it. Symbolic: nothing is read.
 * @throws ModelError with everything that `expandProblems` finds.
 */
export function expand(options: ExpandOptions): Op {
  return (given) => {
    throwIfAny(expandProblems(given, options))
    const { allow = [] } = options
    const checkpoint = withoutAllowed(given, allow)
    const { config, tensors, provenance } = checkpoint
    const { numLayers } = dimensionsOf(familyOf(config), config)
    const after = Array.from(
      { length: options.blocks },
      (_, i) => Math.ceil(((i + 1) * numLayers) / options.blocks) - 1,
    )
    const step: JsonObject = {
      op: 'expand',
      inputs: { base: sourceIds(checkpoint) },
      after,
      layers: numLayers,
      ...(allow.length ? { allow: allow.map((each) => ({ ...each })) } : {}),
    }
    const expanded = expandedConfig(config, insertedLayers(numLayers, after))
    const result = expandedTensors(tensors, config, expanded, step)
    return {
      ...checkpoint,
      config: expanded,
      tensors: result.tensors,
      provenance: {
        ...provenance,
        recipe: [...provenance.recipe, step],
        skipped: [...provenance.skipped, ...result.skipped, ...allowedTensors(given, allow, 'base')],
      },
    }
  }
}

/** The tensors in model order, and those that nothing asked for. */
function expandedTensors(
  tensors: StateDict,
  config: JsonObject,
  expanded: JsonObject,
  step: JsonObject,
): { tensors: StateDict; skipped: readonly Skipped[] } {
  const layout = layoutOf(expanded, config, readExpansion([step]))
  const result = new Map<string, Tensor>()
  const used = new Set<string>()
  for (const name of expectedTensors(layout.family, expanded).keys()) {
    const from = insertedFrom(layout, name) ?? { dense: piecesOf(layout, name)[0]!.dense, isZero: false }
    const tensor = tensors.get(from.dense)!
    used.add(from.dense)
    result.set(name, from.isZero ? { ...tensor, expr: constant(0, numel(tensor.shape)) } : tensor)
  }
  const skipped = [...tensors.keys()]
    .filter((tensor) => !used.has(tensor))
    .map((tensor) => ({
      tensor,
      reason: 'a buffer that every model computes from its config, or a head that tying ignores',
    }))
  return { tensors: result, skipped }
}

/**
 * Everything that keeps `expand` from working; empty when nothing does. Codes: "bad-option", "is-delta", "unsupported-family", "already-moe",
 * "bad-config", "missing-tensor", "unexpected-tensor", "shape-mismatch", "not-float".
 */
export function expandProblems(
  checkpoint: Checkpoint,
  { blocks, allow = [] }: ExpandOptions,
): readonly Problem[] {
  const { config, tensors, provenance } = withoutAllowed(checkpoint, allow)
  const problems: Problem[] = provenance.recipe.some(({ op }) => op === 'delta') ? [HOLDS_DELTA] : []
  try {
    const family = familyOf(config)
    const { numLayers } = dimensionsOf(family, config)
    const most = MAX_LAYERS - numLayers
    if (!(Number.isInteger(blocks) && blocks >= 1 && blocks <= most)) problems.push(badBlocks(blocks, most))
    if (family.moe) problems.push(NOT_DENSE)
    problems.push(...tensorProblems(family, config, tensors))
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    problems.push(...error.problems)
  }
  return problems
}

function badBlocks(blocks: number, most: number): Problem {
  return {
    code: 'bad-option',
    message: 'Option blocks is not usable',
    expected: `a whole number from 1 to ${most}`,
    received: String(blocks),
    next: 'Change blocks.',
  }
}

const NOT_DENSE: Problem = {
  code: 'already-moe',
  message: 'Layers are inserted into dense models alone',
  file: 'config.json',
  expected: 'a dense checkpoint',
  received: 'a mixture of experts',
  next: 'Expand the dense base, and upcycle the result.',
}
