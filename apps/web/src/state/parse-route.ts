/** Pages, in the order of the navigation. */
export const PAGES = ['open', 'inspect', 'compare', 'build', 'try', 'reports'] as const
export type Page = (typeof PAGES)[number]

/** The route that a hash names; an unknown page is the first. */
export function parseRoute(text: string): { page: Page; parameters: URLSearchParams } {
  const [path = '', query = ''] = text.replace(/^#\/?/, '').split('?')
  const page = PAGES.find((name) => name === path) ?? 'open'
  return { page, parameters: new URLSearchParams(query) }
}

/** The hash of a page; parameters that are empty are left out. */
export function hrefOf(page: Page, parameters: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== '')).toString()
  return `#/${page}${query ? `?${query}` : ''}`
}
