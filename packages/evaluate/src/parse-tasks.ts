import { ModelError, type Problem } from '@polygraft/tensor'

/** A question with given answers, scored by their likelihoods. */
export interface MultipleChoice {
  readonly kind: 'multiple-choice'
  /** What results are summed up by. */
  readonly task: string
  /** The language that it is asked in, where the file says so. */
  readonly language?: string
  readonly prompt: string
  readonly choices: readonly string[]
  /** Index of the right choice. */
  readonly gold: number
}

/** A question whose answer is generated greedily and compared. */
export interface ExactMatch {
  readonly kind: 'exact-match'
  readonly task: string
  readonly language?: string
  readonly prompt: string
  /** Any of them counts. */
  readonly answers: readonly string[]
  /** Strings that end the answer, beside the model's own end tokens. */
  readonly until: readonly string[]
}

export type TaskItem = MultipleChoice | ExactMatch

/**
 * Task items, one JSON object on a line, with the field names that data sets of lm-evaluation-harness use. The question is
 * `prompt`, `query`, `question`, `input` or `text`. With `choices` (a list, or `{ text, label }` as in ARC) it is multiple choice, the
 * right one `gold`, `label`, `answer` or `answerKey`: an index, a letter, a label, or the choice itself. Without, it is exact match with
 * `answer`, `target` or `output`, a string or a list. `task`, `language` and `until` are optional. Empty lines are skipped.
 * @param task of the items that name none; usually the file's name.
 * @throws ModelError "bad-task" with every broken line (the file and line in `file`).
 */
export function parseTasks(text: string, file: string, task: string): TaskItem[] {
  const problems: Problem[] = []
  const items: TaskItem[] = []
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue
    const parsed = parseLine(line, task)
    if ('kind' in parsed) items.push(parsed)
    else problems.push({ code: 'bad-task', ...parsed, file: `${file}:${index + 1}` })
  }
  if (items.length === 0 && problems.length === 0)
    problems.push({
      code: 'bad-task',
      message: 'The file has no task items',
      file,
      expected: 'JSON objects, one a line',
    })
  if (problems.length > 0) throw new ModelError(problems)
  return items
}

type Finding = Pick<Problem, 'message' | 'expected' | 'received'>
type Fields = Readonly<Record<string, unknown>>

const QUESTIONS = ['prompt', 'query', 'question', 'input', 'text']
const RIGHT_CHOICES = ['gold', 'label', 'answer', 'answerKey']
const ANSWERS = ['answer', 'target', 'output', 'answers']

function parseLine(line: string, task: string): TaskItem | Finding {
  let fields: unknown
  try {
    fields = JSON.parse(line)
  } catch (error) {
    return {
      message: `The line is not JSON: ${(error as Error).message}`,
      expected: 'one JSON object on each line',
    }
  }
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
    return { message: 'The line is not a JSON object', received: shorten(fields) }
  return parseItem(fields as Fields, task)
}

function parseItem(fields: Fields, fallback: string): TaskItem | Finding {
  const prompt = firstOf(fields, QUESTIONS)
  if (typeof prompt !== 'string')
    return {
      message: 'The item has no question',
      expected: `a string in one of ${QUESTIONS.join(', ')}`,
      received: Object.keys(fields).join(', '),
    }
  const { task = fallback, language } = fields
  if (typeof task !== 'string' || (language !== undefined && typeof language !== 'string'))
    return { message: 'task and language are not strings', received: shorten({ task, language }) }
  const common = { task, prompt, ...(language === undefined ? {} : { language }) }
  return fields.choices === undefined ? exactMatch(fields, common) : multipleChoice(fields, common)
}

type Common = Pick<TaskItem, 'task' | 'language' | 'prompt'>

function multipleChoice(fields: Fields, common: Common): MultipleChoice | Finding {
  const { choices: given } = fields
  const choices = isList(given) ? given : textsOf(given)
  if (!choices || choices.length < 2 || new Set(choices).size !== choices.length)
    return {
      message: 'The choices are not usable',
      expected: 'two or more different strings',
      received: shorten(given),
    }
  const right = firstOf(fields, RIGHT_CHOICES)
  const gold = indexOfChoice(right, choices, isList(given) ? undefined : labelsOf(given))
  if (gold === undefined)
    return {
      message: 'The item does not say which choice is right',
      expected: `${RIGHT_CHOICES.join(', ')}: an index below ${choices.length}, its letter or label, or the choice itself`,
      received: shorten(right),
    }
  return { kind: 'multiple-choice', ...common, choices, gold }
}

/** An index, a choice, a label of the file's own, or a letter: in this order of trust. */
function indexOfChoice(
  right: unknown,
  choices: readonly string[],
  labels: readonly string[] | undefined,
): number | undefined {
  const letters = choices.map((_, i) => String.fromCharCode(65 + i))
  const found =
    typeof right === 'number'
      ? right
      : [choices, labels ?? letters, choices.map((_, i) => `${i}`)]
          .map((names) => names.indexOf(right as string))
          .find((index) => index >= 0)
  return found !== undefined && Number.isInteger(found) && found >= 0 && found < choices.length
    ? found
    : undefined
}

function exactMatch(fields: Fields, common: Common): ExactMatch | Finding {
  const answer = firstOf(fields, ANSWERS)
  const answers = typeof answer === 'string' ? [answer] : answer
  if (!isList(answers) || answers.length === 0)
    return {
      message: 'The item has neither choices nor an answer',
      expected: `a string or strings in one of ${ANSWERS.join(', ')}`,
      received: shorten(answer),
    }
  const { until = [] } = fields
  const stops = typeof until === 'string' ? [until] : until
  if (!isList(stops) || stops.includes(''))
    return {
      message: 'until is not usable',
      expected: 'strings that end an answer',
      received: shorten(until),
    }
  return { kind: 'exact-match', ...common, answers, until: stops }
}

function firstOf(fields: Fields, names: readonly string[]): unknown {
  const name = names.find((each) => Object.hasOwn(fields, each))
  return name === undefined ? undefined : fields[name]
}

function isList(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string')
}

/** ARC's form: `{ "text": [...], "label": [...] }`. */
function textsOf(value: unknown): readonly string[] | undefined {
  const text = (value as { text?: unknown } | null)?.text
  return isList(text) ? text : undefined
}

function labelsOf(value: unknown): readonly string[] | undefined {
  const label = (value as { label?: unknown } | null)?.label
  return isList(label) ? label : undefined
}

function shorten(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
