import { effect } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import { models, openByKey } from '../state/models.js'
import { hrefOf, PAGES, type Page } from '../state/parse-route.js'
import { route } from '../state/route.js'
import {
  LANGUAGES,
  type Language,
  language,
  speak,
  THEMES,
  type Theme,
  text,
  theme,
} from '../state/settings.js'
import { BuildPage } from './build-page.js'
import { ComparePage } from './compare-page.js'
import { InspectPage } from './inspect-page.js'
import { OpenPage } from './open-page.js'
import { ReportsPage } from './reports-page.js'
import { TryPage } from './try-page.js'

const VIEWS: Readonly<Record<Page, () => preact.JSX.Element>> = {
  open: OpenPage,
  inspect: InspectPage,
  compare: ComparePage,
  build: BuildPage,
  try: TryPage,
  reports: ReportsPage,
}

/** The whole page: head, navigation, and the view that the address names. */
export function App() {
  const { page } = route.value
  const View = VIEWS[page]
  const main = useRef<HTMLElement>(null)
  useEffect(() => effect(openLinked), [])
  useEffect(() => {
    document.title = `${text.value[page]} · polygraft`
  }, [page, text.value])
  return (
    <>
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        {text.value.skip}
      </button>
      <header>
        <a class="brand" href={hrefOf('open')}>
          <img src="./icon.svg" alt="" width="28" height="28" />
          polygraft
        </a>
        <nav aria-label={text.value.nav}>
          {PAGES.map((name) => (
            <a key={name} href={hrefOf(name)} aria-current={name === page ? 'page' : undefined}>
              {text.value[name]}
            </a>
          ))}
        </nav>
        <Settings />
      </header>
      <main id="main" tabIndex={-1} ref={main}>
        <View />
      </main>
    </>
  )
}

/** A link may name checkpoints that are not open yet. */
function openLinked(): void {
  const { parameters } = route.value
  for (const name of ['model', 'base', 'post']) {
    const key = parameters.get(name)
    if (key && !models.peek().has(key)) openByKey(key)
  }
}

function Settings() {
  return (
    <div class="settings">
      <label>
        <span class="hidden">{text.value.language}</span>
        <select value={language.value} onChange={(event) => speak(event.currentTarget.value as Language)}>
          {Object.entries(LANGUAGES).map(([tag, name]) => (
            <option key={tag} value={tag} lang={tag}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label>
        <span class="hidden">{text.value.theme}</span>
        <select
          value={theme.value}
          onChange={(event) => {
            theme.value = event.currentTarget.value as Theme
          }}
        >
          {THEMES.map((name) => (
            <option key={name} value={name}>
              {text.value[name]}
            </option>
          ))}
        </select>
      </label>
    </div>
  )
}
