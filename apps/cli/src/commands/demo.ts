import { type StdioOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { styleText } from 'node:util'
import { ModelError } from '@polygraft/tensor'
import type { Command } from 'commander'
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
      'Walk the whole road on three tiny trained checkpoints: inspect, diff, upcycle, graft, verify.',
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
  const steps = road(
    (name) => shorten(join(trio, name)),
    (name) => shorten(join(out, name)),
  )
  const grafted = join(out, 'grafted')
  if (args.json) {
    const results = []
    for (const step of steps)
      results.push({ command: `polygraft ${step.args.join(' ')}`, result: await runQuietly(step) })
    process.stdout.write(`${JSON.stringify({ steps: results, out: grafted })}\n`)
    return
  }
  const started = performance.now()
  for (const [i, step] of steps.entries()) {
    console.log(styleText('bold', `\n${i + 1}. ${step.title}`))
    console.log(styleText('dim', `$ polygraft ${step.args.join(' ')}`))
    await runAloud(step)
  }
  console.log(styleText('bold', `\nDone in ${((performance.now() - started) / 1000).toFixed(1)} s.`))
  console.log(`The grafted checkpoint, which stock transformers loads: ${shorten(grafted)}`)
}

function road(trio: (name: string) => string, out: (name: string) => string): readonly Step[] {
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
