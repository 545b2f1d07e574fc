// `npx tsx tools/webgpu/main.ts [--only <part of a name>]`: the suites of packages/webgpu and packages/model in Chromium, on SwiftShader, and a chat. Needs
// Debian's chromium, or CHROMIUM to name another.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { chromium, type Route } from 'playwright-core'
import type { Outcome } from '../../packages/webgpu/test/suite/index.js'
import type { Page } from './page.js'

const FLAGS = [
  '--no-sandbox',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--disable-background-networking',
  '--disable-component-update',
  '--no-first-run',
]
/** WebGPU is only there for pages of https or of this host. Nothing is served: the requests are answered here. */
const PAGE = 'http://localhost/'
const CHECKPOINT = `${PAGE}checkpoint/`
const CASE_TIMEOUT_MS = 60_000

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url))
const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1]! : ''
const script = await bundle()
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: FLAGS,
})
const outcomes: Outcome[] = []
try {
  const tab = await browser.newPage()
  tab.on('pageerror', (error) => console.error(error.message))
  await tab.route('**', respond)
  await tab.goto(PAGE)
  await tab.waitForFunction(() => 'page' in globalThis)
  console.log(await tab.evaluate(() => (globalThis as unknown as { page: Page }).page.open()))
  const names = await tab.evaluate(() => (globalThis as unknown as { page: Page }).page.names)
  for (const name of names.filter((each) => each.includes(only))) {
    const run = tab.evaluate((each) => (globalThis as unknown as { page: Page }).page.run(each), name)
    const outcome = await Promise.race([run, late(name)])
    console.log(`${outcome.status} ${name} ${Math.round(outcome.ms)} ms ${outcome.message ?? ''}`)
    outcomes.push(outcome)
  }
} finally {
  await browser.close()
}
const count = (status: Outcome['status']) => outcomes.filter((outcome) => outcome.status === status).length
console.log(`chromium: ${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`)
process.exitCode = count('failed') > 0 || count('passed') === 0 ? 1 : 0

function late(name: string): Promise<Outcome> {
  const outcome: Outcome = { name, status: 'failed', message: 'no answer', ms: CASE_TIMEOUT_MS }
  return new Promise((resolve) => setTimeout(() => resolve(outcome), CASE_TIMEOUT_MS).unref())
}

function respond(route: Route): Promise<void> {
  const url = route.request().url()
  if (url === `${PAGE}page.js`) return route.fulfill({ contentType: 'text/javascript', body: script })
  if (url.startsWith(CHECKPOINT)) {
    const name = url.slice(CHECKPOINT.length)
    return route.fulfill({ body: readFileSync(path(`../trio/checkpoints/instruct/${name}`)) })
  }
  return route.fulfill({ contentType: 'text/html', body: '<script type="module" src="page.js"></script>' })
}

/** A module of Node anywhere below the page is an error here. */
async function bundle(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [path('page.ts')],
    bundle: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'warning',
  })
  return outputFiles[0]!.text
}
