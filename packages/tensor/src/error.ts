/**
 * What went wrong, as a fixed word that programs can test. The list is open on purpose: a package adds its own
 * (`shape-mismatch`, `missing-tensor`, `truncated`, ...) beside the check that throws it.
 */
export type ProblemCode = string

/** One finding about an input. Every field but `code` and `message` is there only when it applies. */
export interface Problem {
  readonly code: ProblemCode
  /** What is wrong, as one sentence without the place and the values below. */
  readonly message: string
  readonly file?: string
  /** Where in a text file that somebody wrote; both count from 1. */
  readonly line?: number
  readonly column?: number
  readonly tensor?: string
  readonly expected?: string
  readonly received?: string
  /** What the user can do next. */
  readonly next?: string
}

const SHOWN = 20

/**
 * The one error class. Carries every problem of the kind that was found, so that a user mends them in one go.
 * `code`, `file` and `tensor` are those of the first problem.
 */
export class ModelError extends Error {
  override readonly name = 'ModelError'
  readonly code: ProblemCode
  readonly problems: readonly Problem[]

  constructor(problems: Problem | readonly Problem[], options?: { cause?: unknown }) {
    const all = Array.isArray(problems) ? (problems as readonly Problem[]) : [problems as Problem]
    super(formatProblems(all), options)
    this.problems = all
    this.code = all[0]?.code ?? 'unknown'
  }

  get file(): string | undefined {
    return this.problems[0]?.file
  }

  get tensor(): string | undefined {
    return this.problems[0]?.tensor
  }
}

/** Throws one ModelError with all of `problems`; does nothing when there is none. */
export function throwIfAny(problems: readonly Problem[]): void {
  if (problems.length > 0) throw new ModelError(problems)
}

/** A problem as text: what, where, expected, received, what to do next. */
export function formatProblem(problem: Problem): string {
  const place = [placeOf(problem), problem.tensor && `tensor ${problem.tensor}`].filter(Boolean).join(', ')
  const lines = [`${problem.message} [${problem.code}]${place ? ` (${place})` : ''}`]
  if (problem.expected !== undefined) lines.push(`  expected: ${problem.expected}`)
  if (problem.received !== undefined) lines.push(`  received: ${problem.received}`)
  if (problem.next !== undefined) lines.push(`  next: ${problem.next}`)
  return lines.join('\n')
}

/** `recipe.yml:12:5`, as editors and terminals take it. */
function placeOf({ file, line, column }: Problem): string | undefined {
  return [file, line, column].filter((part) => part !== undefined).join(':') || undefined
}

function formatProblems(problems: readonly Problem[]): string {
  const shown = problems.slice(0, SHOWN).map(formatProblem)
  const rest = problems.length - shown.length
  return [...shown, ...(rest > 0 ? [`... and ${rest} more problems`] : [])].join('\n')
}
