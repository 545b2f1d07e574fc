import { dimensionsOf, familyOf } from '@polygraft/architectures'
import { type Expansion, readExpansion } from '@polygraft/experts'
import type { Checkpoint, JsonObject, Problem } from '@polygraft/tensor'
import type { GraftSettings } from './options.js'

/** cpt with the provenance of what it was trained from, where its own does not tell how it came from a dense model. */
export function withOrigin(cpt: Checkpoint, { upcycled }: Pick<GraftSettings, 'upcycled'>): Checkpoint {
  if (!upcycled || cpt.provenance.recipe.some(isExpansion)) return cpt
  const { recipe, experts } = cpt.provenance
  const labels = experts ?? upcycled.experts
  const provenance = {
    ...cpt.provenance,
    recipe: [...upcycled.recipe.filter(isExpansion), ...recipe],
    ...(labels ? { experts: labels } : {}),
  }
  return { ...cpt, provenance }
}

function isExpansion({ op }: JsonObject): boolean {
  return op === 'upcycle' || op === 'expand'
}

/**
 * How cpt came from a dense model of that config: by its recipe, or else as plain copies. What `sharedExpert` says goes where
 * no recipe does. A dense model with all of cpt's layers is itself one that layers were inserted into.
 * @throws ModelError "bad-manifest", "bad-config".
 */
export function expansionOf(
  { provenance, config }: Checkpoint,
  denseConfig: JsonObject,
  { sharedExpert }: Pick<GraftSettings, 'sharedExpert'>,
): Expansion {
  const { layers, ...expansion } = readExpansion(provenance.recipe)
  const isExpanded = layersOf(config) === layersOf(denseConfig)
  return {
    ...expansion,
    ...(sharedExpert && !knowsSharedExpert(provenance.recipe) ? { sharedExpert } : {}),
    ...(layers && !isExpanded ? { layers } : {}),
  }
}

function layersOf(config: JsonObject): number {
  return dimensionsOf(familyOf(config), config).numLayers
}

/** Whether a recipe says what the shared expert is. */
export function knowsSharedExpert(recipe: readonly JsonObject[]): boolean {
  return recipe.findLast(({ op }) => op === 'upcycle')?.sharedExpert !== undefined
}

/** Where cpt is not what its recipe says, or shows what no recipe explains. */
export function expansionProblems(
  cpt: Checkpoint,
  denseConfig: JsonObject,
  settings: GraftSettings,
): Problem[] {
  const { granularity, layers } = expansionOf(cpt, denseConfig, settings)
  const family = familyOf(cpt.config)
  const { numLayers, numExperts, expertIntermediateSize } = dimensionsOf(family, cpt.config)
  const dense = dimensionsOf(familyOf(denseConfig), denseConfig)
  const problems: Problem[] = []
  if (layers && layers.length !== numLayers)
    problems.push(otherLayers(`${layers.length} layers`, `num_hidden_layers: ${numLayers}`))
  if (family.moe && numExperts % granularity !== 0)
    problems.push(otherLayers(`a multiple of ${granularity} experts`, `${numExperts}`))
  if (cpt.provenance.recipe.some(isExpansion)) return problems
  if (family.moe && expertIntermediateSize < dense.intermediateSize)
    problems.push(
      notRecorded(
        'experts that are smaller than the dense block',
        dense.intermediateSize,
        expertIntermediateSize,
      ),
    )
  if (numLayers > dense.numLayers)
    problems.push(notRecorded('more layers than the dense model', dense.numLayers, numLayers))
  return problems
}

function otherLayers(expected: string, received: string): Problem {
  return {
    code: 'bad-manifest',
    message: 'The recipe of cpt is not that of its weights',
    file: 'polygraft.json',
    expected,
    received,
    next: 'Use the polygraft.json of the checkpoint that cpt was trained from.',
  }
}

function notRecorded(what: string, expected: number, received: number): Problem {
  return {
    code: 'recipe-missing',
    message: `cpt has ${what}, and no polygraft.json says how they came about`,
    expected: `${expected}`,
    received: `${received}`,
    next: 'Copy the polygraft.json of the checkpoint that cpt was trained from beside it, or name that checkpoint (--upcycled).',
  }
}
