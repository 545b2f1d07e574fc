// `npx tsx tools/paper/slice.ts`: the main rows of the experiment, shortened, on one seed, beside recorded figures.
// `npx tsx tools/paper/slice.ts --record <dir>`: makes those anew, on three seeds; what is there in <dir> is not made again.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Scores } from './evaluate.js'
import { createLaboratory } from './laboratory.js'

const SCALE = 0.3
const AMOUNTS = { documents: 24, items: 140 }
const STAGES = ['instruct', 'dense-cpt', 'param-delta', 'moe-review', 'delta-moe']
const RECORDED = new URL('./slice.json', import.meta.url)
const SEEDS = [0, 1, 2]
/** Drift that is taken for chance: the standard deviation between seeds, and at least so many points, or percent of a perplexity. */
const LEAST = 3

/** Instructions right in percent; perplexities as 100 times their logarithm, so that a unit is a percent. */
type Figures = Record<string, number>
type Recorded = readonly { readonly seed: number; readonly figures: Figures }[]

const [option, kept] = process.argv.slice(2)
if (option === '--record' && kept) await record(kept)
else await check()

async function record(dir: string): Promise<void> {
  const recorded = []
  for (const seed of SEEDS) recorded.push({ seed, figures: await figuresOf(seed, join(dir, `seed-${seed}`)) })
  writeFileSync(RECORDED, `${JSON.stringify(recorded, undefined, 2)}\n`)
}

async function check(): Promise<void> {
  const recorded: Recorded = JSON.parse(readFileSync(RECORDED, 'utf8'))
  const dir = mkdtempSync(join(tmpdir(), 'polygraft-paper-'))
  try {
    report(await figuresOf(SEEDS[0]!, dir), recorded)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

function report(figures: Figures, recorded: Recorded): void {
  const results = [
    ...drifts(figures, recorded),
    // What must hold whatever was recorded: a graft keeps most of the original languages, more than on a dense model.
    atLeast('delta-moe O', figures, 0.6 * figures['instruct O']!, 'six tenths of instruct O'),
    atLeast('delta-moe O', figures, 1.5 * figures['param-delta O']!, 'one and a half times param-delta O'),
    atLeast('param-delta O ppl', figures, 15 + figures['delta-moe O ppl']!, 'delta-moe O ppl and 15 %'),
  ]
  for (const { line, isRight } of results) console.log(`${isRight ? 'ok    ' : 'FAILED'} ${line}`)
  const passed = results.filter(({ isRight }) => isRight).length
  const failed = results.length - passed
  console.log(`the experiment in miniature: ${passed} passed, ${failed} failed`)
  process.exitCode = failed > 0 ? 1 : 0
}

async function figuresOf(seed: number, dir: string): Promise<Figures> {
  const laboratory = createLaboratory({
    ...{ dir, seed, scale: SCALE, amounts: AMOUNTS, mayTrain: true, commit: 'slice', say: console.log },
  })
  const figures: Figures = {}
  for (const stage of STAGES) {
    const scores = (await laboratory.scores(stage, 'test'))!
    for (const [name, value] of figuresIn(scores)) figures[`${stage} ${name}`] = Number(value.toFixed(2))
  }
  return figures
}

function figuresIn(scores: Scores): [string, number][] {
  return [
    ['O ppl', 100 * Math.log(scores.originalPerplexity)],
    ['N ppl', 100 * Math.log(scores.newPerplexity)],
    ['O', 100 * scores.originalInstructions],
    ['N', 100 * scores.newInstructions],
  ]
}

function drifts(figures: Figures, recorded: Recorded) {
  const before = recorded.find(({ seed }) => seed === SEEDS[0])!
  return Object.entries(figures).map(([name, value]) => {
    const allowed = Math.max(LEAST, deviation(recorded.map((each) => each.figures[name]!)))
    const was = before.figures[name]!
    return {
      line: `${name}: ${value.toFixed(1)}, recorded ${was.toFixed(1)} ± ${allowed.toFixed(1)}`,
      isRight: Math.abs(value - was) <= allowed,
    }
  })
}

function atLeast(name: string, figures: Figures, least: number, what: string) {
  const value = figures[name]!
  const line = `${name}: ${value.toFixed(1)}, at least ${what}, ${least.toFixed(1)}`
  return { line, isRight: value >= least }
}

function deviation(values: readonly number[]): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1))
}
