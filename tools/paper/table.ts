import type { Scores, Split } from './evaluate.js'
import type { Laboratory } from './laboratory.js'
import type { Method, Part } from './rows.js'

/** A method's scores under each seed that has them, with the parameter that was chosen. */
export interface Row {
  readonly title: string
  readonly stage: string
  /** Whether that stage was chosen among several. */
  readonly isChosen: boolean
  readonly seeds: readonly number[]
  readonly scores: readonly Scores[]
}

/** Every method that some laboratory has, each with the parameter that is best on the development split. */
export async function tableOf(part: Part, laboratories: readonly Laboratory[]): Promise<Row[]> {
  const rows: Row[] = []
  for (const method of part.methods) {
    const stage = await bestOf(method, laboratories)
    const scored = await scoresOf(stage, part.split, laboratories)
    if (scored.length === 0) continue
    rows.push({
      ...{ title: method.title, stage, isChosen: method.stages.length > 1 },
      seeds: scored.map(({ seed }) => seed),
      scores: scored.map(({ scores }) => scores),
    })
  }
  return part.isCommon ? rows.map((row) => onSeeds(row, commonSeeds(rows))) : rows
}

function commonSeeds(rows: readonly Row[]): readonly number[] {
  const [first, ...rest] = rows.map(({ seeds }) => seeds)
  return (first ?? []).filter((seed) => rest.every((seeds) => seeds.includes(seed)))
}

function onSeeds(row: Row, seeds: readonly number[]): Row {
  return { ...row, seeds, scores: seeds.map((seed) => row.scores[row.seeds.indexOf(seed)]!) }
}

/** The stage with the highest mean of original and new languages' instructions over all seeds, on the development split. */
async function bestOf({ stages }: Method, laboratories: readonly Laboratory[]): Promise<string> {
  if (stages.length === 1) return stages[0]!
  let [best, highest] = [stages[0]!, -1]
  for (const stage of stages) {
    const scored = await scoresOf(stage, 'dev', laboratories)
    const sum = scored.reduce((sum, { scores }) => sum + bothInstructions(scores), 0)
    if (sum / scored.length > highest) [best, highest] = [stage, sum / scored.length]
  }
  return best
}

/** What parameters are chosen by. */
function bothInstructions({ originalInstructions, newInstructions }: Scores): number {
  return (originalInstructions + newInstructions) / 2
}

async function scoresOf(stage: string, split: Split, laboratories: readonly Laboratory[]) {
  const found = []
  for (const laboratory of laboratories) {
    const scores = await laboratory.scores(stage, split)
    if (scores) found.push({ seed: laboratory.seed, scores })
  }
  return found
}
