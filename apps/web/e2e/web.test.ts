import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { polygraft, trioPath } from './cli.js'
import { serve } from './server.js'
import { goTo, openSite, openTrio, type Site, type Visit, visitSite } from './site.js'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const PICTURES = fileURLToPath(new URL('../../../docs/web/', import.meta.url))

let site: Site
const folder = mkdtempSync(join(tmpdir(), 'polygraft-web-'))

beforeAll(async () => {
  site = await openSite()
})
afterAll(async () => {
  await site.close()
  rmSync(folder, { recursive: true })
})

const visit = (walk: (visit: Visit) => Promise<void>, options?: Parameters<Site['newPage']>[0]) =>
  visitSite(site, walk, options)

describe('a first visit', () => {
  it('shows a model with one click, layer by layer, and the values of a tensor', () =>
    visit(async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await page.getByText('MixtralForCausalLM').waitFor()
      expect(await page.locator('.architecture .block.expert').count()).toBe(12)
      await page.getByRole('searchbox').fill('layers.2 experts.1.w1')
      await page.getByText('1 of 67').waitFor()
      await page.getByRole('button', { name: 'model.layers.2.block_sparse_moe.experts.1.w1.weight' }).click()
      await page.locator('canvas.heat').waitFor()
      expect(await page.locator('svg.histogram rect').count()).toBe(60)
    }))

  it('loads at most 100 kB of scripts, gzipped, before anything is opened', async () => {
    const { context, requests } = await site.newPage()
    await context.close()
    const scripts = requests.filter((url) => url.endsWith('.js') && !url.endsWith('sw.js'))
    const dist = fileURLToPath(new URL('../dist/', import.meta.url))
    const fetched = new Set(scripts.map((url) => new URL(url).pathname))
    const first = [...fetched].filter((path) => /\/index-[^/]*\.js$/.test(path))
    expect(first).toHaveLength(1)
    expect(gzipSync(readFileSync(join(dist, first[0]!))).length).toBeLessThan(100_000)
  })

  it('works offline the next time', () =>
    visit(async (visited) => {
      const { page, context } = visited
      await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined))
      await context.setOffline(true)
      await page.reload()
      await openTrio(visited)
    }))

  it.each([
    ['zh-CN', 'zh', '打开微型三件套'],
    ['es-MX', 'es', 'Abrir el trío diminuto'],
    ['fr-FR', 'en', 'Open the tiny trio'],
  ])('speaks what the browser asks for: %s', (locale, lang, button) =>
    visit(
      async ({ page }) => {
        await page.getByRole('button', { name: button }).waitFor()
        expect(await page.locator('html').getAttribute('lang')).toBe(lang)
      },
      { locale },
    ),
  )
})

describe('compare', () => {
  it('has the numbers of polygraft diff --json', () =>
    visit(async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Compare')
      await page.getByRole('button', { name: 'Compare' }).click()
      const download = page.waitForEvent('download')
      await page.getByRole('button', { name: 'Save as JSON' }).click()
      const path = join(folder, 'diff.json')
      await (await download).saveAs(path)
      const { base: _, post: __, ...shown } = JSON.parse(readFileSync(path, 'utf8'))
      const { base: ___, post: ____, ...wanted } = polygraft('diff', trioPath('base'), trioPath('instruct'))
      expect(shown).toEqual(wanted)
      expect(await page.locator('.map tbody tr').count()).toBe(5)
    }))

  it('stops when it is told to, and can begin again', () =>
    visit(async (visited) => {
      const { page } = visited
      await openFolder(page, sparse(600e6))
      await page.getByText('1,000 of 1,000').waitFor()
      await goTo(page, 'Compare')
      const key = await page.getByLabel('Base').inputValue()
      await page.evaluate((model) => {
        location.hash = `#/compare?base=${model}&post=${model}`
      }, key)
      await page.getByRole('button', { name: 'Compare' }).click()
      await page.getByRole('button', { name: 'Cancel' }).click()
      await page.getByText('cancelled', { exact: true }).waitFor()
      await page.getByRole('button', { name: 'Compare' }).click()
      await page.getByRole('button', { name: 'Save as JSON' }).waitFor()
    }))
})

describe('build', () => {
  it('writes the shards that polygraft graft writes, and opens them', () =>
    visit(async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Build')
      await page.getByText('No problems found.').waitFor()
      await page.getByRole('button', { name: 'Write into this browser' }).click()
      const written = await digests(page)
      const out = join(folder, 'grafted')
      const sources = ['--base', trioPath('base'), '--post', trioPath('instruct')]
      const { shards } = polygraft('graft', trioPath('cpt'), '-o', out, ...sources)
      expect(written).toEqual(shards.map(({ sha256 }: { sha256: string }) => sha256))
      await page.getByRole('button', { name: 'Open the result' }).click()
      await page.getByText('upcycle → train → graft').waitFor()
    }))

  it('upcycles a base and grafts in one step as two commands do, with factors', () =>
    visit(async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Build')
      await page.getByLabel('Trained mixture (CPT)').selectOption('')
      await page.getByLabel('New languages').fill('c, d')
      await page.getByLabel('factor of expert d').fill('0.5')
      await page.getByText('--expert-lambda 2=0.5').waitFor()
      await page.getByRole('button', { name: 'Write into this browser' }).click()
      const written = await digests(page)
      const moe = join(folder, 'moe')
      const out = join(folder, 'moe-grafted')
      polygraft('upcycle', trioPath('base'), '-o', moe, '--languages', 'c,d')
      const sources = ['--base', trioPath('base'), '--post', trioPath('instruct'), '--expert-lambda', '2=0.5']
      const { shards } = polygraft('graft', moe, '-o', out, ...sources)
      expect(written).toEqual(shards.map(({ sha256 }: { sha256: string }) => sha256))
    }))

  it('gives the recipe as YAML, with factors by layer and a target, of which polygraft merge makes the same shards', () =>
    visit(async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Build')
      await page.getByLabel('Trained mixture (CPT)').selectOption('')
      await page.getByLabel('Target family').selectOption('qwen2_moe')
      await page.getByLabel('New languages').fill('c, d')
      await page.getByLabel('factor of expert d').fill('0.5')
      await page.getByText('Factors by layer').click()
      await page.getByLabel('Layer 2').fill('0.25')
      await page.getByText('layerLambda: { "2": 0.25 }').waitFor()
      const yaml = await page.locator('pre', { hasText: 'steps:' }).textContent()
      await page.getByRole('button', { name: 'Write into this browser' }).click()
      const written = await digests(page)
      symlinkSync(join(trioPath(''), '../../..', 'tools'), join(folder, 'tools'))
      writeFileSync(join(folder, 'recipe.yml'), yaml!)
      const { shards } = polygraft('merge', join(folder, 'recipe.yml'), '-o', join(folder, 'merged'))
      expect(written).toEqual(shards.map(({ sha256 }: { sha256: string }) => sha256))
    }))

  it('writes the same into a picked folder, and nothing over what is there', () =>
    visit(async (visited) => {
      const { page } = visited
      // Scripts cannot work the browser's picker; what it would give is a folder of the page's own storage.
      await page.addInitScript(() => {
        Object.assign(globalThis, { showDirectoryPicker: () => navigator.storage.getDirectory() })
      })
      await page.reload()
      await openTrio(visited)
      await goTo(page, 'Build')
      await page.getByRole('button', { name: 'Write into this browser' }).click()
      const written = await digests(page)
      await page.getByLabel('Name of the output').fill('picked')
      await page.getByRole('button', { name: 'Write into a folder' }).click()
      await page.getByRole('heading', { name: 'Done: picked' }).waitFor()
      expect(await digests(page)).toEqual(written)
      await page.getByRole('button', { name: 'Write into a folder' }).click()
      await page.getByText('output-exists').waitFor()
    }))

  it('says so when the browser gives no more space, and can write once it does', () =>
    visit(async (visited) => {
      const { page, context } = visited
      await openTrio(visited)
      await goTo(page, 'Build')
      await page.getByText('No problems found.').waitFor()
      const browser = await context.newCDPSession(page)
      const { origin } = new URL(page.url())
      await browser.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 100_000 })
      await page.getByRole('button', { name: 'Write into this browser' }).click()
      await page.getByText('disk-full').waitFor()
      await browser.send('Storage.overrideQuotaForOrigin', { origin })
      await page.getByRole('button', { name: 'Write into this browser' }).click()
      expect(await digests(page)).toHaveLength(1)
    }))

  it('says what speaks against a recipe', () =>
    visit(async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Build')
      await page.getByLabel('Post-trained').selectOption('')
      await page.getByLabel('New languages').fill('original')
      await page.getByRole('alert').waitFor()
      expect(await page.getByRole('button', { name: 'Write into this browser' }).isDisabled()).toBe(true)
    }))
})

/** SHA-256 of what was written, as the page shows them. */
async function digests(page: Page): Promise<string[]> {
  await page.locator('.digests code').first().waitFor()
  return page.locator('.digests code').allTextContents()
}

/** Opens files as a user would pick them, with `sparse` data written out. */
async function openFolder(page: Page, files: ReturnType<typeof sparse>): Promise<void> {
  const dir = mkdtempSync(join(folder, 'sparse-'))
  for (const [name, { size, head }] of files) {
    writeFileSync(join(dir, name), head)
    truncateSync(join(dir, name), size)
  }
  await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'showOpenFilePicker'))
  await page.reload()
  const choosing = page.waitForEvent('filechooser')
  await page.getByRole('button', { name: 'Pick files' }).click()
  await (await choosing).setFiles([...files.keys()].map((name) => join(dir, name)))
}

describe('from elsewhere', () => {
  it('opens files from the disk', () =>
    visit(async ({ page }) => {
      // What browsers without pickers of their own get, which scripts can fill.
      await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'showOpenFilePicker'))
      await page.reload()
      const choosing = page.waitForEvent('filechooser')
      await page.getByRole('button', { name: 'Pick files' }).click()
      const files = readdirSync(trioPath('instruct')).map((name) => join(trioPath('instruct'), name))
      await (await choosing).setFiles(files)
      await page.getByText('LlamaForCausalLM').waitFor()
    }))

  it('opens 4 GB behind a URL and reads less than 2 MB of it', async () => {
    const remote = await serve(sparse(4 * 2 ** 30))
    const { page, context } = await site.newPage()
    try {
      await page.getByLabel('https: URL').fill(`${remote.url}/model.safetensors`)
      await page.getByRole('button', { name: 'Open', exact: true }).click()
      await page.getByText('1000 of 1000').or(page.getByText('1,000 of 1,000')).waitFor()
      expect(remote.sent.bytes).toBeLessThan(2e6)
      expect(remote.sent.requests).toBeLessThanOrEqual(3)
      // A tensor of 4 MB is looked at; the rows in the page are few.
      expect(await page.locator('.tensors tbody tr').count()).toBeLessThan(40)
      await page.getByRole('button', { name: 't.0001', exact: true }).click()
      await page.locator('canvas.heat').waitFor()
      expect(remote.sent.bytes).toBeLessThan(8e6)
    } finally {
      await context.close()
      await remote.close()
    }
  })

  it('fetches whole files from a server that knows no ranges, and says so', async () => {
    const names = readdirSync(trioPath('base'))
    const files = new Map(
      names.map((name) => {
        const head = readFileSync(join(trioPath('base'), name))
        return [name, { size: head.length, head }] as const
      }),
    )
    const remote = await serve(files, true, false)
    const { page, context } = await site.newPage()
    try {
      await page.getByLabel('https: URL').fill(`${remote.url}/`)
      await page.getByRole('button', { name: 'Open', exact: true }).click()
      await page.getByText('This server cannot send parts of a file').waitFor()
      await page.getByText('LlamaForCausalLM').waitFor()
      await page.getByRole('button', { name: 'model.embed_tokens.weight' }).click()
      await page.locator('canvas.heat').waitFor()
    } finally {
      await context.close()
      await remote.close()
    }
  })

  it('says what is wrong with a file, and goes on', async () => {
    const visited = await site.newPage()
    try {
      const { page } = visited
      const bad = { size: 4096, head: Buffer.from([255, 255, 255, 255, 255, 255, 255, 255]) }
      await openFolder(page, new Map([['model.safetensors', bad]]))
      await page.getByRole('alert').waitFor()
      expect(visited.complaints).toEqual([])
      await openTrio(visited)
    } finally {
      await visited.context.close()
    }
  })

  it('says what a server must send that pages may not read, and goes on', async () => {
    const remote = await serve(sparse(2 ** 20), false)
    const visited = await site.newPage()
    try {
      await visited.page.getByLabel('https: URL').fill(`${remote.url}/model.safetensors`)
      await visited.page.getByRole('button', { name: 'Open', exact: true }).click()
      await visited.page.getByText('Access-Control-Allow-Origin').waitFor()
      await openTrio(visited)
    } finally {
      await visited.context.close()
      await remote.close()
    }
  })
})

/** A checkpoint of 1,000 F32 tensors whose data are zeros that nobody stores. */
function sparse(bytes: number) {
  const each = Math.floor(bytes / 1000 / 4096) * 4096
  const described = Object.fromEntries(
    Array.from({ length: 1000 }, (_, i) => [
      `t.${String(i).padStart(4, '0')}`,
      { dtype: 'F32', shape: [each / 4096, 1024], data_offsets: [i * each, (i + 1) * each] },
    ]),
  )
  const text = JSON.stringify(described)
  const json = Buffer.from(text + ' '.repeat((8 - (text.length % 8)) % 8))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(json.length))
  const head = Buffer.concat([length, json])
  return new Map([['model.safetensors', { size: head.length + 1000 * each, head }]])
}

describe.each(['light', 'dark'] as const)('in %s', (scheme) => {
  it('has nothing that axe finds, fits 360 pixels, and looks like the pictures', () =>
    visit(
      async (visited) => {
        const { page } = visited
        await check(page, `open-${scheme}`)
        await openTrio(visited)
        await page.getByRole('button', { name: 'model.embed_tokens.weight' }).click()
        await page.locator('canvas.heat').waitFor()
        await check(page, `inspect-${scheme}`)
        await goTo(page, 'Compare')
        await page.getByRole('button', { name: 'Compare' }).click()
        await page.locator('.map').waitFor()
        await check(page, `compare-${scheme}`)
        await goTo(page, 'Build')
        await page.getByText('No problems found.').waitFor()
        await page.getByRole('button', { name: 'Write into this browser' }).click()
        await page.locator('.digests code').first().waitFor()
        await check(page, `build-${scheme}`)
        await goTo(page, 'Try')
        await page.getByRole('button', { name: 'fage : bozu dolu disa' }).click()
        await page.getByText('Questions answered: 1').waitFor()
        await page.getByRole('button', { name: 'Texts of the tiny trio' }).click()
        await page.getByRole('button', { name: 'Show experts' }).click()
        await page.locator('.map td').first().waitFor()
        await check(page, `try-${scheme}`)
        await goTo(page, 'Reports')
        await page.getByLabel('Report files').setInputFiles(reportFiles())
        await page.locator('.curve').first().waitFor()
        await page.getByText('Perplexity, a').waitFor()
        await check(page, `reports-${scheme}`)
      },
      { colorScheme: scheme, viewport: { width: 1200, height: 800 } },
    ))
})

/** What the command measured of the tiny base, and the log of a run of a few steps. */
function reportFiles(): string[] {
  const [report, run] = [join(folder, 'eval.json'), join(folder, 'trained')]
  const text = `a=${trioPath('../data/raw-a.txt')}`
  const compared = ['--reference', trioPath('base')]
  writeFileSync(report, JSON.stringify(polygraft('eval', trioPath('instruct'), '--text', text, ...compared)))
  if (!existsSync(run)) polygraft('train', 'sft', trioPath('base'), '--data', text, '--steps', '8', '-o', run)
  return [report, join(`${run}.run`, 'log.jsonl')]
}

/** Axe, at both widths; with PICTURES=1 the picture in docs/ is taken again. */
async function check(page: Page, name: string): Promise<void> {
  await page.evaluate(() => scrollTo(0, 0))
  if (process.env.PICTURES) await page.screenshot({ path: `${PICTURES}${name}.png`, fullPage: false })
  for (const width of [1200, 360]) {
    await page.setViewportSize({ width, height: 800 })
    // Page scripts are forbidden where they are not the site's; what the browser itself evaluates is not.
    await page.evaluate(AXE)
    const violations = await page.evaluate(async () => {
      const { axe } = globalThis as unknown as {
        axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> }
      }
      const found = await axe.run()
      return found.violations.map(({ id, nodes }) => `${id}: ${nodes[0]!.html}`)
    })
    expect(violations, `${name} at ${width}`).toEqual([])
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
    expect(overflow, `${name} at ${width}`).toBeLessThanOrEqual(0)
  }
  await page.setViewportSize({ width: 1200, height: 800 })
}
