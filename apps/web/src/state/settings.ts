import { effect, signal } from '@preact/signals'
import { english, type Messages } from '../text/en.js'

/** Languages that the page speaks, by what they call themselves. */
export const LANGUAGES = { en: 'English', zh: '中文', es: 'Español' } as const
export type Language = keyof typeof LANGUAGES
export const THEMES = ['auto', 'light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

const loaders: Readonly<Record<Language, () => Promise<Messages>>> = {
  en: async () => english,
  zh: async () => (await import('../text/zh.js')).chinese,
  es: async () => (await import('../text/es.js')).spanish,
}

/** What the page says, in the language that was chosen. */
export const text = signal<Messages>(english)
export const language = signal<Language>(startLanguage())
export const theme = signal<Theme>(THEMES.find((each) => each === stored('theme')) ?? 'auto')

/** Loads what was chosen, and keeps it for the next visit. */
export async function startSettings(): Promise<void> {
  effect(() => {
    document.documentElement.dataset.theme = theme.value
    store('theme', theme.value)
  })
  await speak(language.value)
}

/** Changes the language. */
export async function speak(wanted: Language): Promise<void> {
  text.value = await loaders[wanted]()
  language.value = wanted
  document.documentElement.lang = wanted
  store('language', wanted)
}

function startLanguage(): Language {
  const wanted = [stored('language') ?? '', ...navigator.languages].map((tag) =>
    tag.slice(0, 2).toLowerCase(),
  )
  return (wanted.find((tag) => Object.hasOwn(LANGUAGES, tag)) as Language | undefined) ?? 'en'
}

// Storage may be forbidden; then the choice lasts as long as the page.
function stored(name: string): string | null {
  try {
    return localStorage.getItem(name)
  } catch {
    return null
  }
}

function store(name: string, value: string): void {
  try {
    localStorage.setItem(name, value)
  } catch {
    return
  }
}
