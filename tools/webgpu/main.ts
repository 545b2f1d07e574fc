// `npx tsx tools/webgpu/main.ts`: the suite of packages/webgpu in Chromium, on SwiftShader. Needs Debian's chromium, or CHROMIUM to name another.
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { chromium } from 'playwright-core'
import type { Outcome } from '../../packages/webgpu/test/suite/index.js'

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
const CASE_TIMEOUT_MS = 60_000

/** What the page offers to this program. */
interface Suite {
  names(): readonly string[]
  open(): Promise<string>
  run(name: string): Promise<Outcome>
}

const script = await bundle()
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: FLAGS,
})
const outcomes: Outcome[] = []
try {
  const page = await browser.newPage()
  page.on('pageerror', (error) => console.error(error.message))
  await page.route('**', (route) =>
    route.request().url() === `${PAGE}suite.js`
      ? route.fulfill({ contentType: 'text/javascript', body: script })
      : route.fulfill({ contentType: 'text/html', body: '<script type="module" src="suite.js"></script>' }),
  )
  await page.goto(PAGE)
  await page.waitForFunction(() => 'suite' in globalThis)
  console.log(await page.evaluate(() => (globalThis as unknown as { suite: Suite }).suite.open()))
  const names = await page.evaluate(() => (globalThis as unknown as { suite: Suite }).suite.names())
  for (const name of names) {
    const late = new Promise<Outcome>((resolve) =>
      setTimeout(
        () => resolve({ name, status: 'failed', message: 'no answer', ms: CASE_TIMEOUT_MS }),
        CASE_TIMEOUT_MS,
      ).unref(),
    )
    const run = page.evaluate((each) => (globalThis as unknown as { suite: Suite }).suite.run(each), name)
    const outcome = await Promise.race([run, late])
    console.log(`${outcome.status} ${name} ${Math.round(outcome.ms)} ms ${outcome.message ?? ''}`)
    outcomes.push(outcome)
  }
} finally {
  await browser.close()
}
const count = (status: Outcome['status']) => outcomes.filter((outcome) => outcome.status === status).length
console.log(`chromium: ${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`)
process.exitCode = count('failed') > 0 || count('passed') === 0 ? 1 : 0

async function bundle(): Promise<string> {
  const contents = `
    import { createGpu } from '@polygraft/webgpu'
    import { CASE_NAMES, runCase } from './index.js'
    let gpu
    globalThis.suite = {
      names: () => CASE_NAMES,
      open: async () => (gpu = await createGpu()).name,
      run: (name) => runCase(gpu, name),
    }`
  const { outputFiles } = await build({
    stdin: {
      contents,
      resolveDir: fileURLToPath(new URL('../../packages/webgpu/test/suite', import.meta.url)),
    },
    bundle: true,
    platform: 'browser',
    format: 'esm',
    target: 'es2022',
    write: false,
    logLevel: 'warning',
  })
  return outputFiles[0]!.text
}
