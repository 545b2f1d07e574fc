import { fileURLToPath } from 'node:url'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import { preview } from 'vite'
import { expect } from 'vitest'

const APP = fileURLToPath(new URL('..', import.meta.url))
const EXECUTABLE = process.env.CHROMIUM ?? '/usr/bin/chromium'
/** What a browser does by itself on a network is no part of the page. */
const FLAGS = [
  '--no-sandbox',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
]

/** The built site, served, and a browser. Close it. */
export interface Site {
  readonly url: string
  /** A page of a browser profile of its own; what it complains about is in `complaints`. */
  newPage(options?: Parameters<Browser['newContext']>[0]): Promise<Visit>
  close(): Promise<void>
}

export interface Visit {
  readonly page: Page
  readonly context: BrowserContext
  /** Errors of the page and of its console. */
  readonly complaints: string[]
  /** Addresses that were asked for, by the page and its workers. */
  readonly requests: string[]
}

/** @param flags More of Chromium's. */
export async function openSite(flags: readonly string[] = []): Promise<Site> {
  const server = await preview({ root: APP, configFile: `${APP}vite.config.ts`, preview: { port: 0 } })
  const url = server.resolvedUrls!.local[0]!
  const browser = await chromium.launch({ executablePath: EXECUTABLE, args: [...FLAGS, ...flags] })
  return {
    url,
    async newPage(options = {}) {
      const context = await browser.newContext({ locale: 'en-GB', ...options })
      const page = await context.newPage()
      const complaints: string[] = []
      const requests: string[] = []
      page.on('pageerror', (error) => complaints.push(error.message))
      page.on('console', (message) => {
        if (message.type() === 'error') complaints.push(message.text())
      })
      context.on('request', (request) => requests.push(request.url()))
      await page.goto(url)
      return { page, context, complaints, requests }
    },
    async close() {
      await browser.close()
      await server.close()
    },
  }
}

/** Opens the tiny trio, and waits until all three are there. */
export async function openTrio({ page }: Visit): Promise<void> {
  await page.getByRole('button', { name: 'Open the tiny trio' }).click()
  await page.getByRole('heading', { level: 1, name: 'cpt' }).waitFor()
}

/** Goes through a visit; nothing may be complained of, and nobody else asked. */
export async function visitSite(
  site: Site,
  walk: (visit: Visit) => Promise<void>,
  options?: Parameters<Site['newPage']>[0],
): Promise<void> {
  const visited = await site.newPage(options)
  try {
    await walk(visited)
    expect(visited.complaints).toEqual([])
    expect(visited.requests.filter((url) => !url.startsWith(site.url) && !url.startsWith('blob:'))).toEqual(
      [],
    )
  } finally {
    await visited.context.close()
  }
}

export const goTo = (page: Page, name: string) => page.getByRole('link', { name, exact: true }).click()
