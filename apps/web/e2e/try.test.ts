import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { polygraft, trioPath } from './cli.js'
import { goTo, openSite, openTrio, type Site, visitSite } from './site.js'

const PROMPT = 'fage : bozu dolu disa'
const folder = mkdtempSync(join(tmpdir(), 'polygraft-try-'))
const grafted = (lambda: number) => {
  const out = join(folder, `graft-${lambda}`)
  if (existsSync(out)) return out
  const sources = ['--base', trioPath('base'), '--post', trioPath('instruct'), '--lambda', `${lambda}`]
  polygraft('graft', trioPath('cpt'), '-o', out, ...sources)
  return out
}
const generated = (checkpoint: string): string =>
  polygraft('generate', checkpoint, '--chat', '--prompt', PROMPT, '--max-new-tokens', '128').text

let site: Site
beforeAll(async () => {
  site = await openSite()
})
afterAll(async () => {
  await site.close()
  rmSync(folder, { recursive: true })
})

const answer = (page: Page, part: string) =>
  page.getByRole('region', { name: part, exact: true }).locator('.turns .answer').last()

describe('try', () => {
  it('answers as polygraft generate does, the graft included that was never written, and again when lambda moves', () =>
    visitSite(site, async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Try')
      await page.getByRole('button', { name: PROMPT }).click()
      await page.getByText('Questions answered: 1').waitFor({ state: 'attached' })
      expect(await answer(page, 'Post-trained (instruct)').textContent()).toBe(
        generated(trioPath('instruct')),
      )
      expect(await answer(page, 'Graft').textContent()).toBe(generated(grafted(1)))
      // Every token of a mixture has a colour.
      expect(await answer(page, 'Graft').locator('.token').count()).toBeGreaterThan(0)
      await page.getByLabel('λ, strength').fill('0.5')
      await page.getByText('Working').waitFor({ state: 'attached' })
      await page.getByText('Questions answered: 1').waitFor({ state: 'attached' })
      expect(await answer(page, 'Graft').textContent()).toBe(generated(grafted(0.5)))
      await page.getByLabel('Question').fill(PROMPT)
      await page.getByRole('button', { name: 'Send' }).click()
      await page.getByText('Questions answered: 2').waitFor({ state: 'attached' })
      expect(await page.getByRole('alert').count()).toBe(0)
    }))

  it('shows which experts the languages take, as polygraft route does', () =>
    visitSite(site, async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Try')
      await page.getByRole('button', { name: 'Texts of the tiny trio' }).click()
      await page.getByRole('button', { name: 'Show experts' }).click()
      await page.getByText('layer 0').first().waitFor()
      const shown = await page.locator('.map td').allTextContents()
      const texts = ['a', 'b', 'c', 'd'].flatMap((language) => [
        '--text',
        `${language}=${trioPath('../data')}/raw-${language}.txt`,
      ])
      const { languages } = polygraft('route', grafted(1), ...texts)
      const percent = new Intl.NumberFormat('en-GB', { style: 'percent', maximumSignificantDigits: 3 })
      const wanted = ['a', 'b', 'c', 'd'].flatMap((language) =>
        languages[language][0].share.map((share: number) => percent.format(share)),
      )
      expect(shown).toEqual(wanted)
    }))

  it('says in its column what no model can be made of, and the others go on', () =>
    visitSite(site, async (visited) => {
      const { page } = visited
      await page.addInitScript(() => Reflect.deleteProperty(globalThis, 'showOpenFilePicker'))
      await page.reload()
      await openTrio(visited)
      await goTo(page, 'Open')
      const choosing = page.waitForEvent('filechooser')
      await page.getByRole('button', { name: 'Pick files' }).click()
      const files = ['config.json', 'model.safetensors', 'generation_config.json']
      await (await choosing).setFiles(
        files.map((name) => ({
          name,
          mimeType: 'application/octet-stream',
          buffer: readFileSync(join(trioPath('instruct'), name)),
        })),
      )
      await page.getByRole('heading', { level: 1, name: 'config.json' }).waitFor()
      await goTo(page, 'Build')
      await page.getByLabel('Post-trained').selectOption({ label: 'config.json' })
      await goTo(page, 'Try')
      await page.getByLabel('Question').fill(PROMPT)
      await page.getByRole('button', { name: 'Send' }).click()
      await page.getByText('no-tokenizer').first().waitFor()
      await page.getByText('Questions answered: 1').waitFor({ state: 'attached' })
    }))
})

describe('try on WebGPU', () => {
  it('says that there is none, and what to do', () =>
    visitSite(site, async (visited) => {
      const { page } = visited
      await openTrio(visited)
      await goTo(page, 'Try')
      const hasGpu = await page.evaluate(() => 'gpu' in navigator)
      if (!hasGpu)
        return void (await page.getByText('WebGPU: not in this browser').waitFor({ state: 'attached' }))
      await page.getByLabel('Computed on').selectOption('webgpu')
      await page.getByRole('button', { name: PROMPT }).click()
      await page.getByRole('region', { name: 'Graft', exact: true }).getByText('no-adapter').waitFor()
    }))

  it('answers as on the CPU', async () => {
    const withGpu = await openSite(['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'])
    try {
      await visitSite(withGpu, async (visited) => {
        const { page } = visited
        await page.goto(withGpu.url.replace('127.0.0.1', 'localhost'))
        await openTrio(visited)
        await goTo(page, 'Try')
        await page.getByLabel('Computed on').selectOption('webgpu')
        await page.getByRole('button', { name: PROMPT }).click()
        // Shaders are compiled three times, on the CPU.
        await page.getByText('Questions answered: 1').waitFor({ state: 'attached', timeout: 110_000 })
        await page.getByRole('region', { name: 'Graft', exact: true }).getByText('WebGPU: ').waitFor()
        expect(await answer(page, 'Graft').textContent()).toBe(generated(grafted(1)))
      })
    } finally {
      await withGpu.close()
    }
  })
})
