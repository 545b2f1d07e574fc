import type { Scores } from './evaluate.js'
import { formatMean, meanAndError } from './statistics.js'
import type { Row } from './table.js'

type Key = 'originalInstructions' | 'newInstructions'

/** A claim of the paper's abstract as a comparison of two methods, seed by seed. */
interface Claim {
  readonly claim: string
  readonly against: readonly string[]
  readonly key: Key
}

const METHOD = 'delta-moe'
const MERGES = [
  ...['param-delta', 'linear', 'slerp', 'ties', 'dare', 'della'],
  ...['breadcrumbs', 'model-stock', 're-adapt', 'replay-delta'],
]
const AS_LARGE = ['llama-pro', 'wide', 'btx-delta', 'moe-review-instruct']
const CLAIMS: readonly Claim[] = [
  { claim: 'original ability is preserved', against: ['instruct'], key: 'originalInstructions' },
  { claim: 'new-language ability rises', against: ['instruct'], key: 'newInstructions' },
  { claim: 'better than merging and dense CPT: O', against: MERGES, key: 'originalInstructions' },
  { claim: 'better than merging and dense CPT: N', against: MERGES, key: 'newInstructions' },
  { claim: 'better at as many parameters: O', against: AS_LARGE, key: 'originalInstructions' },
  { claim: 'better at as many parameters: N', against: AS_LARGE, key: 'newInstructions' },
]

/** What the measured rows say of each claim: the method minus the other, in points, over the seeds that both have. */
export function formatClaims(rows: readonly Row[]): string {
  const find = (name: string) => rows.find(({ stage }) => stage === name || stage.startsWith(`${name}-`))
  const method = rows.find(({ stage }) => stage.startsWith(METHOD))
  if (!method) return ''
  const lines = CLAIMS.flatMap(({ claim, against, key }) =>
    against.flatMap((name) => {
      const other = find(name)
      if (!other) return []
      const differences = pairedDifferences(method, other, key)
      const cells = [claim, other.title, formatMean(differences, 1, '+'), verdict(differences)]
      return [`| ${cells.join(' | ')} |`]
    }),
  )
  return `| claim | DeltaMoE minus | points | here |
|---|---|---|---|
${lines.join('\n')}
`
}

function pairedDifferences(method: Row, other: Row, key: Key): number[] {
  const ofSeed = (row: Row, seed: number): Scores | undefined => row.scores[row.seeds.indexOf(seed)]
  return method.seeds.flatMap((seed) => {
    const [a, b] = [ofSeed(method, seed), ofSeed(other, seed)]
    return a && b ? [100 * (a[key] - b[key])] : []
  })
}

/** Beyond two standard errors one way or the other, or not. */
function verdict(differences: readonly number[]): string {
  const { mean, error } = meanAndError(differences)
  if (Number.isNaN(error)) return `${mean > 0 ? 'higher' : 'lower'} on one seed`
  if (Math.abs(mean) <= 2 * error) return 'within two standard errors'
  return mean > 0 ? 'higher' : 'lower'
}
