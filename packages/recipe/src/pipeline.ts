import type { Problem } from '@polygraft/tensor'
import type { PipelineRecipe, StepReference, WrittenStep } from './_pipeline-schema.js'
import { planFindings } from './_plan-problems.js'
import { readMerge } from './_read-merge.js'
import { type Reader, readerOf } from './_reader.js'
import { cycleProblems, neededSteps } from './_step-order.js'
import type { Path, YamlText } from './_yaml.js'
import type { MergePlan } from './merge-plan.js'

type Other = Exclude<WrittenStep, { op: 'merge' }>

/** A step as it is to be run. Plain data. */
export interface PlannedStep {
  readonly id: string
  readonly path: Path
  /** What its references stand for, by the keys that have them: ids of steps, or names of models. */
  readonly inputs: Readonly<Record<string, string>>
  /** All that it refers to. */
  readonly uses: readonly string[]
  readonly body: Other | { readonly op: 'merge'; readonly plan: MergePlan }
}

export interface PipelinePlan {
  /** Those that the output needs, in an order in which they can run; the last gives the output. */
  readonly steps: readonly PlannedStep[]
  readonly reader: Reader
  readonly problems: readonly Problem[]
  readonly warnings: readonly Problem[]
}

/** Keys of steps that hold a reference. */
const REFERENCES = ['model', 'base', 'post', 'delta', 'adapter', 'upcycled'] as const

/** Reads a checked recipe of ours: what each step refers to, and in which order they run. */
export function planPipeline(recipe: PipelineRecipe, yaml: YamlText): PipelinePlan {
  const ids = new Set(recipe.steps.map(({ id }) => id))
  const reader = readerOf(yaml, ids)
  const findings: { problems: Problem[]; warnings: Problem[] } = { problems: [], warnings: [] }
  const steps = recipe.steps.map((step, i) => readStep(step, ['steps', i], reader))
  for (const { body } of steps) {
    if (body.op !== 'merge' || reader.problems.length > 0) continue
    const { problems, warnings } = planFindings(body.plan, yaml)
    findings.problems.push(...problems)
    findings.warnings.push(...warnings)
  }
  for (const [i, { id, path }] of steps.entries())
    if (steps.findIndex((other) => other.id === id) < i)
      reader.report('duplicate-step', `Two steps are called ${id}`, [...path, 'id'], { received: id })
  if (recipe.output !== undefined && !ids.has(recipe.output))
    reader.report('unknown-step', `There is no step ${recipe.output}`, ['output'], {
      expected: [...ids].join(', '),
      received: recipe.output,
    })
  const wrong = [...reader.problems, ...findings.problems, ...cycleProblems(steps, yaml)]
  if (wrong.length > 0) return { steps: [], reader, problems: wrong, warnings: findings.warnings }
  const needed = neededSteps(steps, recipe.output ?? steps.at(-1)!.id)
  const unused = steps.filter((step) => !needed.includes(step)).map((step) => unusedStep(step, yaml))
  return { steps: needed, reader, problems: [], warnings: [...findings.warnings, ...unused] }
}

function readStep(step: WrittenStep, path: Path, reader: Reader): PlannedStep {
  const uses: string[] = []
  const noting: Reader = {
    ...reader,
    model(written, at) {
      const name = reader.model(written, at)
      uses.push(name)
      return name
    },
  }
  if (step.op === 'merge') {
    const plan = readMerge(step, path, noting)
    return { id: step.id, path, inputs: {}, uses, body: { op: 'merge', plan } }
  }
  const written = Object.entries(referencesOf(step))
  const inputs = written.map(([key, reference]) => {
    const at = key.split(' ')
    return [key, noting.model(reference, [...path, ...at])] as const
  })
  if (step.op === 'graft') checkDelta(step, path, reader)
  return { id: step.id, path, inputs: Object.fromEntries(inputs), uses, body: step }
}

/** By key; of an expert by `expertsFrom <index>`. */
function referencesOf(step: Other): Readonly<Record<string, StepReference>> {
  const found: Record<string, StepReference> = {}
  for (const key of REFERENCES) {
    const reference = (step as { readonly [key in typeof key]?: StepReference })[key]
    if (reference !== undefined) found[key] = reference
  }
  if (step.op === 'upcycle')
    for (const [expert, reference] of Object.entries(step.expertsFrom ?? {}))
      found[`expertsFrom ${expert}`] = reference
  return found
}

function checkDelta(
  { base, post, delta }: Extract<Other, { op: 'graft' }>,
  path: Path,
  reader: Reader,
): void {
  const pair = [base, post].filter((each) => each !== undefined).length
  if (delta === undefined ? pair === 2 : pair === 0) return
  const given = Object.entries({ base, post, delta }).filter(([, value]) => value !== undefined)
  reader.report('bad-recipe', 'A graft takes either base and post, or delta', path, {
    expected: 'base and post, or delta',
    received: given.map(([key]) => key).join(', ') || 'none of them',
  })
}

function unusedStep({ id, path }: PlannedStep, yaml: YamlText): Problem {
  return {
    code: 'unused-step',
    message: `Step ${id} is not run: the output does not need it`,
    ...yaml.place([...path, 'id']),
  }
}
