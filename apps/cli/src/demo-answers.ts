import { readFile } from 'node:fs/promises'
import { formatTable } from './format.js'
import { startModel } from './model.js'
import { openCheckpoint } from './open.js'

/** A question of `tools/trio/data/instruct-<language>.jsonl`, as a user would ask it. */
export interface Question {
  readonly task: string
  readonly question: string
  readonly answer: string
}

/** A checkpoint's answers to all questions, in their order. */
export interface Answers {
  readonly name: string
  readonly answers: readonly string[]
  /** How many are right, word for word. */
  readonly right: number
}

interface Line {
  readonly task: string
  /** `<bos> <user> question <asst>` */
  readonly prompt: string
  /** `answer <end>` */
  readonly answer: string
}

/** The questions of a file, without the marks that the chat template sets. */
export async function readQuestions(path: string): Promise<Question[]> {
  const lines = (await readFile(path, 'utf8')).split('\n').filter((line) => line !== '')
  return lines.map((line) => {
    const { task, prompt, answer }: Line = JSON.parse(line)
    const question = prompt.replace(/^<bos> <user> /, '').replace(/ <asst>$/, '')
    return { task, question, answer: answer.replace(/ <end>$/, '') }
  })
}

/** No answer of the tiny world is longer. Unit: tokens. */
const MAX_ANSWER = 16

/**
 * Asks checkpoints that share a tokenizer the same questions. All are asked by the template of the first: one that was never
 * post-trained has none.
 */
export async function askAll(
  locations: Readonly<Record<string, string>>,
  questions: readonly Question[],
): Promise<Answers[]> {
  const asked: Answers[] = []
  let prompts: readonly (readonly number[])[] | undefined
  let endTokens: readonly number[] = []
  for (const [name, location] of Object.entries(locations)) {
    const running = await startModel(await openCheckpoint(location))
    try {
      if (!prompts) endTokens = running.endTokens
      prompts ??= questions.map(({ question }) =>
        running.tokenizer.encodeChat([{ role: 'user', content: question }]),
      )
      const given = await running.generator.complete(prompts, { maxNewTokens: MAX_ANSWER, endTokens })
      const answers = given.map(({ text }) => text.trim())
      const right = answers.filter((text, i) => text === questions[i]!.answer).length
      asked.push({ name, answers, right })
    } finally {
      await running.close()
    }
  }
  return asked
}

/**
 * Three questions with every answer: the first that the first and the last checkpoint get right, and the first that only one of them does,
 * either way; and how many of all are right, by task.
 */
export function describeAnswers(questions: readonly Question[], asked: readonly Answers[]): string {
  const isRight = ({ answers }: Answers, i: number) => answers[i] === questions[i]!.answer
  const [before, after] = [asked[0]!, asked.at(-1)!]
  const shown = [
    [true, true],
    [false, true],
    [true, false],
  ].map(([one, other]) =>
    questions.findIndex((_, i) => isRight(before, i) === one && isRight(after, i) === other),
  )
  const blocks = shown
    .filter((i) => i >= 0)
    .map((i) => {
      const lines = asked.map((each) => [
        `  ${each.name}`,
        `${isRight(each, i) ? '✓' : '✗'} ${each.answers[i]}`,
      ])
      return `${questions[i]!.question}\n${alignLeft([['  expected', `  ${questions[i]!.answer}`], ...lines])}`
    })
  const tasks = [...new Set(questions.map(({ task }) => task))]
  const counts = tasks.map((task) => {
    const own = questions.flatMap((each, i) => (each.task === task ? [i] : []))
    return [task, ...asked.map((each) => `${own.filter((i) => isRight(each, i)).length}`), `${own.length}`]
  })
  const total = ['all', ...asked.map(({ right }) => `${right}`), `${questions.length}`]
  const table = formatTable([['right', ...asked.map(({ name }) => name), 'of'], ...counts, total])
  return `${blocks.join('\n')}\n\n${table}`
}

function alignLeft(rows: readonly (readonly string[])[]): string {
  const width = Math.max(...rows.map(([name]) => name!.length))
  return rows.map(([name, text]) => `${name!.padEnd(width)}  ${text}`.trimEnd()).join('\n')
}
