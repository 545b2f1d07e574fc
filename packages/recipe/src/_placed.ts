import { ModelError, type Problem } from '@polygraft/tensor'
import type { Place } from './_yaml.js'

/** `problem` with the place in the recipe that asks for what has it; one of another file keeps that, and is told where from. */
export function placedAt(problem: Problem, place: Place): Problem {
  if (problem.line !== undefined) return problem
  if (problem.file === undefined) return { ...problem, ...place }
  const { file, line, column } = place
  return { ...problem, message: `${problem.message}, asked for in ${file}:${line}:${column}` }
}

/** Everything that goes wrong in `work` gets `place`, where it has none. */
export async function placed<T>(
  place: Place,
  work: () => Promise<T>,
  change: (problem: Problem) => Problem = (problem) => problem,
): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    const problems = error.problems.map((problem) => placedAt(change(problem), place))
    throw new ModelError(problems, { cause: error })
  }
}
