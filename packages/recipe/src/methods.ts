/** A parameter of a merge method. */
export interface ParameterRule {
  /** `merge`: one for the whole merge. `model`: each model has its own; `other`: each but the base. */
  readonly scope: 'merge' | 'model' | 'other'
  readonly type: 'number' | 'whole' | 'boolean'
  /** Half-open or closed bounds, where it has any. */
  readonly above?: number
  readonly least?: number
  readonly most?: number
  /** Values beside those of the type. */
  readonly choices?: readonly string[]
  /** Absent: the parameter must be given. */
  readonly default?: number | boolean
  readonly about: string
}

/** What a merge method takes. */
export interface MethodRule {
  /** `none`: all models are alike, and a base only lends config and tokenizer. */
  readonly base: 'required' | 'optional' | 'none'
  /** How many models it takes beside the base. */
  readonly least: number
  readonly most?: number
  readonly parameters: Readonly<Record<string, ParameterRule>>
  readonly about: string
}

const number = (
  scope: ParameterRule['scope'],
  about: string,
  more: Partial<ParameterRule> = {},
): ParameterRule => ({
  scope,
  type: 'number',
  about,
  ...more,
})
const boolean = (value: boolean, about: string): ParameterRule => ({
  scope: 'merge',
  type: 'boolean',
  default: value,
  about,
})

const weight = number('other', 'Factor of its task vector.')
const density = number('other', 'Share of the elements that is kept.', { above: 0, most: 1, default: 1 })
const lambda = number('merge', 'Factor of the merged task vector.', { default: 1 })
const normalize = (value: boolean) => boolean(value, 'Divide by the sum of the weights that count.')
const rescale = (value: boolean): ParameterRule => ({
  ...boolean(
    value,
    'Scale what is kept up, so that the sum of magnitudes stays; l1: by the ratio of the sums.',
  ),
  choices: ['l1'],
})
const t = number('merge', 'How far from the base to the other model.')

/** What all methods of task vectors take. */
const vectors = (normalised: boolean, rescaled: boolean) => ({
  weight,
  density,
  lambda,
  normalize: normalize(normalised),
  rescale: rescale(rescaled),
})
const gamma = number('other', 'Share of the largest elements that is dropped.', {
  least: 0,
  most: 1,
  default: 0.01,
})
const epsilon = number(
  'other',
  'Half the spread of the probabilities to keep, from the smallest element to the largest.',
  {
    least: 0,
    most: 1,
    default: 0.15,
  },
)

const seed: ParameterRule = {
  scope: 'merge',
  type: 'whole',
  least: 0,
  default: 0,
  about: 'Decides what is dropped.',
}

const ofVectors = (about: string, parameters: Readonly<Record<string, ParameterRule>>): MethodRule => ({
  base: 'required',
  least: 1,
  parameters,
  about,
})

/** Every merge method, by the name that recipes call it. */
export const METHODS: Readonly<Record<string, MethodRule>> = {
  linear: {
    base: 'none',
    least: 1,
    parameters: {
      weight: number('model', 'Its share.'),
      normalize: boolean(true, 'Divide by the sum of the weights.'),
    },
    about: 'Weighted mean (arXiv:2203.05482).',
  },
  slerp: {
    base: 'required',
    least: 1,
    most: 1,
    parameters: { t },
    about: 'Along the arc between two models.',
  },
  nuslerp: {
    base: 'optional',
    least: 2,
    most: 2,
    parameters: {
      weight: number('other', 'Its share of the way.'),
      nuslerp_flatten: boolean(true, 'Take a tensor as one vector, not row by row or column by column.'),
      nuslerp_row_wise: boolean(false, 'Take columns for the vectors, where tensors are not one vector.'),
    },
    about: 'SLERP by weights, of the models or of their task vectors.',
  },
  multislerp: {
    base: 'optional',
    least: 1,
    parameters: {
      weight: number('other', 'Its share.'),
      normalize_weights: boolean(true, 'Divide by the sum of the weights.'),
    },
    about: 'Barycentre on the sphere, of the models or of their task vectors.',
  },
  karcher: {
    base: 'none',
    least: 1,
    parameters: {
      max_iter: { scope: 'merge', type: 'whole', least: 1, most: 1000, default: 10, about: 'Steps at most.' },
      tol: number('merge', 'Length of a step that ends the search.', { above: 0, default: 1e-5 }),
    },
    about: 'Karcher mean on the sphere.',
  },
  task_arithmetic: ofVectors('Sum of task vectors (arXiv:2212.04089).', vectors(false, false)),
  ties: ofVectors('Trim, elect signs, mean of those that agree (arXiv:2306.01708).', vectors(true, false)),
  dare_linear: ofVectors('Drop at random and rescale, then sum (arXiv:2311.03099).', {
    ...vectors(false, true),
    seed,
  }),
  dare_ties: ofVectors('Drop at random and rescale, then elect (arXiv:2311.03099).', {
    ...vectors(false, true),
    seed,
  }),
  breadcrumbs: ofVectors('Drop the largest and the smallest, then sum (arXiv:2312.06795).', {
    ...vectors(false, false),
    gamma,
  }),
  breadcrumbs_ties: ofVectors('The same with elected signs.', { ...vectors(false, false), gamma }),
  della: ofVectors('Drop by rank of magnitude at random, then elect (arXiv:2406.11617).', {
    ...vectors(true, true),
    epsilon,
  }),
  della_linear: ofVectors('The same without election.', { ...vectors(false, true), epsilon }),
  sce: ofVectors('Select by variance, weigh by energy, erase minority signs (arXiv:2408.07990).', {
    select_topk: number('merge', 'Share of the elements with the largest variance.', {
      above: 0,
      most: 1,
      default: 1,
    }),
  }),
  model_stock: {
    base: 'required',
    least: 2,
    parameters: { filter_wise: boolean(false, 'An angle for each row.') },
    about: 'Between base and mean, by the angle between the models (arXiv:2403.19522).',
  },
  nearswap: {
    base: 'required',
    least: 1,
    most: 1,
    parameters: { t: number('merge', 'Distance up to which elements are swapped.', { least: 0 }) },
    about: 'Takes the other model where it is near the base.',
  },
  arcee_fusion: {
    base: 'required',
    least: 1,
    most: 1,
    parameters: {},
    about: 'Takes the other model where the change is an outlier in importance.',
  },
  ram: ofVectors('Reinforced agent merging: shared and unique changes apart.', {
    epsilon: number('merge', 'Changes below this are none.', { least: 0, default: 1e-5 }),
  }),
  ramplus_tl: ofVectors('The same, with unique changes scaled up by their share.', {
    r: number('merge', 'How much the share of unique changes counts.', { default: 0.1 }),
    alpha: number('merge', 'The most that unique changes are scaled up.', { default: 0.2 }),
    epsilon: number('merge', 'Changes below this are none.', { least: 0, default: 1e-5 }),
  }),
  passthrough: {
    base: 'none',
    least: 1,
    most: 1,
    parameters: { scale: number('model', 'A factor.', { default: 1 }) },
    about: 'Tensors as they are.',
  },
}
