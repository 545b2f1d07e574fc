import { computed, signal } from '@preact/signals'
import { hrefOf, type Page, parseRoute } from './parse-route.js'

const hash = signal(location.hash)
addEventListener('hashchange', () => {
  hash.value = location.hash
})

/** Page and parameters that the address names: `#/inspect?model=trio:base`. */
export const route = computed(() => parseRoute(hash.value))

/** Goes to a page. */
export function go(page: Page, parameters?: Readonly<Record<string, string>>): void {
  location.hash = hrefOf(page, parameters)
}
