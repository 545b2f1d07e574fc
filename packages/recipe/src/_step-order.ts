import type { Problem } from '@polygraft/tensor'
import type { Path, YamlText } from './_yaml.js'

/** What order needs to know of a step. */
interface Ordered {
  readonly id: string
  readonly path: Path
  readonly uses: readonly string[]
}

/** A problem for every loop of steps that wait for each other. */
export function cycleProblems(steps: readonly Ordered[], yaml: YamlText): Problem[] {
  const byId = new Map(steps.map((step) => [step.id, step]))
  const done = new Set<string>()
  const problems: Problem[] = []
  const visit = (step: Ordered, above: readonly string[]): void => {
    const from = above.indexOf(step.id)
    if (from >= 0) problems.push(cycle([...above.slice(from), step.id], step, yaml))
    if (from >= 0 || done.has(step.id)) return
    for (const id of new Set(step.uses)) {
      const next = byId.get(id)
      if (next) visit(next, [...above, step.id])
    }
    done.add(step.id)
  }
  for (const step of steps) visit(step, [])
  return problems
}

function cycle(loop: readonly string[], { path }: Ordered, yaml: YamlText): Problem {
  return {
    code: 'cycle',
    message: 'Steps wait for each other in a circle',
    ...yaml.place([...path, 'id']),
    received: loop.join(' needs '),
    next: 'Let one of them start from a checkpoint.',
  }
}

/** The steps that `output` needs, itself last, each behind those that it uses. Without cycles. */
export function neededSteps<Step extends Ordered>(steps: readonly Step[], output: string): Step[] {
  const byId = new Map(steps.map((step) => [step.id, step]))
  const needed = new Set<Step>()
  const take = (step: Step): void => {
    for (const id of step.uses) {
      const next = byId.get(id)
      if (next && !needed.has(next)) take(next)
    }
    needed.add(step)
  }
  take(byId.get(output)!)
  return [...needed]
}
