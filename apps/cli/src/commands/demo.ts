import { type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { styleText } from 'node:util'
import { ModelError } from '@polygraft/tensor'
import type { Command } from 'commander'
import { askAll, describeAnswers, readQuestions } from '../demo-answers.js'
import { STOP_SIGNALS } from '../signals.js'
import { addExample, addJson } from './_options.js'

interface Step {
  readonly title: string
  readonly args: readonly string[]
}

/** `polygraft demo`: the whole road on the tiny trained trio that comes with the program. */
export function addDemo(program: Command): void {
  const command = program
    .command('demo')
    .description(
      'Walk the whole road on three tiny trained checkpoints: inspect, diff, upcycle, graft, verify; then ask them in a new language.',
    )
    .option('-o, --out <dir>', 'where to leave the checkpoints that it makes', 'out/demo')
  addExample(addJson(command), 'polygraft demo')
  command.action(run)
}

async function run(args: { out: string; json?: boolean }): Promise<void> {
  const trio = findTrio()
  const out = resolve(args.out)
  await mkdir(out, { recursive: true }).catch((cause: Error) => {
    const problem = {
      code: 'io',
      message: 'The output folder cannot be made',
      file: out,
      received: cause.message,
    }
    throw new ModelError(problem, { cause })
  })
  const places: Places = {
    trio: (name) => shorten(join(trio, name)),
    data: (name) => shorten(join(trio, '../data', name)),
    out: (name) => shorten(join(out, name)),
  }
  await (args.json ? walkQuietly(places) : walkAloud(places))
}

/** Where things lie, as they are typed here. */
interface Places {
  readonly trio: (name: string) => string
  readonly data: (name: string) => string
  readonly out: (name: string) => string
}

async function walkQuietly(places: Places): Promise<void> {
  const steps: { command: string; result: unknown }[] = []
  const walk = async (all: readonly Step[]) => {
    for (const step of all)
      steps.push({ command: `polygraft ${step.args.join(' ')}`, result: await runQuietly(step) })
  }
  await walk(road(places))
  const { questions, asked } = await ask(places)
  await walk([evaluation(places)])
  const [grafted, report] = [resolve(places.out('grafted')), resolve(places.out(REPORT))]
  process.stdout.write(`${JSON.stringify({ steps, questions, answers: asked, out: grafted, report })}\n`)
}

async function walkAloud(places: Places): Promise<void> {
  const started = performance.now()
  let count = 0
  const walk = async (all: readonly Step[]) => {
    for (const step of all) {
      console.log(styleText('bold', `\n${++count}. ${step.title}`))
      console.log(styleText('dim', `$ polygraft ${step.args.join(' ')}`))
      await runAloud(step)
    }
  }
  await walk(road(places))
  console.log(
    styleText(
      'bold',
      `\n${++count}. Ask in ${NEW_LANGUAGE}, a language that no instruction was ever written in`,
    ),
  )
  console.log(styleText('dim', `$ polygraft generate ${places.out('grafted')} --chat --prompt "..."`))
  const { questions, asked } = await ask(places)
  console.log(describeAnswers(questions, asked))
  console.log(HONEST)
  await walk([evaluation(places)])
  console.log(styleText('bold', `\nDone in ${((performance.now() - started) / 1000).toFixed(1)} s.`))
  console.log(`The grafted checkpoint, which stock transformers loads: ${places.out('grafted')}`)
  console.log(`The report: ${pathToFileURL(resolve(places.out(REPORT)))}`)
}

const REPORT = 'report.html'
/** c was not post-trained in; nor was d. */
const NEW_LANGUAGE = 'c'
const HONEST = `Three toys of 0.2 and 0.5 million parameters: the one before the graft never saw an instruction, and what separates the other two here is
about a standard error. What the graft guarantees is that the instruct model is inside it, bit for bit.`

async function ask({ trio, data, out }: Places) {
  const questions = await readQuestions(data(`instruct-${NEW_LANGUAGE}.jsonl`))
  const asked = await askAll(
    { instruct: trio('instruct'), 'before the graft': trio('cpt'), grafted: out('grafted') },
    questions,
  )
  return { questions, asked }
}

function evaluation({ trio, data, out }: Places): Step {
  const texts = ['a', NEW_LANGUAGE].flatMap((name) => ['--text', `${name}=${data(`raw-${name}.txt`)}`])
  const beside = ['--reference', trio('instruct'), '--base', trio('base')]
  return {
    title: `Measure it beside the instruct model: text in a, which both know, and in ${NEW_LANGUAGE}; with a page of figures`,
    args: ['eval', out('grafted'), ...texts, ...beside, '--report', out(REPORT)],
  }
}

function road({ trio, out }: Places): readonly Step[] {
  const sources = ['--base', trio('base'), '--post', trio('instruct')]
  return [
    { title: 'The base: a dense Llama', args: ['inspect', trio('base')] },
    { title: 'What post-training changed', args: ['diff', trio('base'), trio('instruct'), '--top', '5'] },
    {
      title: 'Upcycle the base: one expert for what it knows, one for each new language',
      args: ['upcycle', trio('base'), '-o', out('upcycled'), '--languages', 'c,d', '--force'],
    },
    { title: 'Every expert is the base FFN', args: ['verify', out('upcycled'), '--base', trio('base')] },
    {
      title: 'Graft the post-training delta onto the checkpoint that went on training from there',
      args: ['graft', trio('cpt'), '-o', out('grafted'), ...sources, '--force'],
    },
    {
      title: "Check the method's properties on what was written",
      args: ['verify', out('grafted'), ...sources, '--cpt', trio('cpt')],
    },
  ]
}

async function runAloud({ args }: Step): Promise<void> {
  const { code } = await runChild(args, 'inherit')
  if (code !== 0) throw failed(args, code)
}

/** @throws ModelError with the problems that the step reports. */
async function runQuietly({ args }: Step): Promise<unknown> {
  const { code, stdout } = await runChild([...args, '--json'], ['ignore', 'pipe', 'ignore'])
  const result = stdout === '' ? {} : JSON.parse(stdout)
  if (code !== 0) throw result.error ? new ModelError(result.error.problems) : failed(args, code)
  return result
}

async function runChild(
  args: readonly string[],
  stdio: StdioOptions,
): Promise<{ code: unknown; stdout: string }> {
  const child = spawn(process.execPath, [process.argv[1]!, ...args], { stdio })
  // A terminal sends Ctrl-C to the child as well, which tidies up; it is waited for.
  const pass = (signal: NodeJS.Signals) => child.kill(signal)
  for (const name of STOP_SIGNALS) process.on(name, pass)
  try {
    let stdout = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    const [code, signal] = await once(child, 'close')
    return { code: code ?? signal, stdout }
  } finally {
    for (const name of STOP_SIGNALS) process.off(name, pass)
  }
}

function failed(args: readonly string[], code: unknown): ModelError {
  return new ModelError({ code: 'demo-failed', message: `polygraft ${args[0]} ended with exit code ${code}` })
}

/** The trio lies in a working copy under tools/, or beside the installed program. */
function findTrio(): string {
  const places = ['../../../tools/trio/checkpoints', './trio'].map((path) =>
    fileURLToPath(new URL(path, import.meta.url)),
  )
  const found = places.find((place) => existsSync(join(place, 'base', 'config.json')))
  if (found) return found
  throw new ModelError({
    code: 'missing-trio',
    message: "The demo's checkpoints are not there",
    expected: places.join(' or '),
    next: 'Make them with `bash tools/trio/make.sh`, or install polygraft again.',
  })
}

function shorten(path: string): string {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short
}
