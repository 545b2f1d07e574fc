import { useSignal } from '@preact/signals'
import { columns, isBusy, routeTexts, routing, routingProblems } from '../state/chat.js'
import { models } from '../state/models.js'
import { text } from '../state/settings.js'
import type { Recipe } from '../worker/api.js'
import type { LanguageRouting, LanguageText, Part } from '../worker/chat-api.js'
import { paint } from './delta-map.js'
import { share } from './format.js'
import { Problems } from './parts.js'
import { Scroll } from './scroll.js'
import { Legend, Tokens } from './tokens.js'

const TRIO_LANGUAGES = ['a', 'b', 'c', 'd']
/** Documents of a file that are run through, at most. */
const MAX_DOCUMENTS = 48

/** Which experts the tokens of each language take, for text that is typed or dropped. */
export function RoutingPanel({ recipe, layer }: { recipe: Recipe; layer: number }) {
  const part: Part = recipe.post === undefined ? 'start' : 'result'
  const texts = useSignal<readonly LanguageText[]>([{ language: '', documents: [''] }])
  const experts = columns.value.get(part)?.model?.experts ?? []
  const given = texts.value.filter(({ documents }) => documents.some((each) => each.trim() !== ''))
  const change = (at: number, changed: Partial<LanguageText>) => {
    texts.value = texts.value.map((each, i) => (i === at ? { ...each, ...changed } : each))
  }
  const add = (more: readonly LanguageText[]) => {
    texts.value = [...texts.value.filter(({ documents }) => documents.join('').trim() !== ''), ...more]
  }
  const isTrio = [...models.value.keys()].some((key) => key.startsWith('trio:'))
  return (
    <section
      class="card drop"
      aria-label={text.value.routing}
      onDragOver={(event) => event.preventDefault()}
      onDrop={async (event) => {
        event.preventDefault()
        add(await Promise.all([...(event.dataTransfer?.files ?? [])].map(readText)))
      }}
    >
      <h2>{text.value.routing}</h2>
      <p>{text.value.routingText}</p>
      {texts.value.map(({ language, documents }, i) => (
        <div class="language" key={i}>
          <label class="field">
            <span>{text.value.language}</span>
            <input
              type="text"
              value={language}
              onInput={(event) => change(i, { language: event.currentTarget.value })}
            />
          </label>
          <label class="field">
            <span>{text.value.textOfLanguage}</span>
            <textarea
              rows={2}
              value={documents.join('\n')}
              onInput={(event) => change(i, { documents: event.currentTarget.value.split('\n') })}
            />
          </label>
        </div>
      ))}
      <div class="row">
        <button type="button" onClick={() => add([{ language: '', documents: [''] }])}>
          {text.value.addLanguage}
        </button>
        {isTrio && (
          <button type="button" onClick={async () => add(await readTrioTexts())}>
            {text.value.trioTexts}
          </button>
        )}
        <button
          type="button"
          class="primary"
          disabled={given.length === 0 || isBusy()}
          onClick={() => routeTexts(recipe, part, given)}
        >
          {text.value.startRouting}
        </button>
      </div>
      <Problems problems={routingProblems.value} />
      <div aria-live="polite">
        {routing.value.length > 0 && <Result routing={routing.value} layer={layer} experts={experts} />}
      </div>
    </section>
  )
}

function Result(props: { routing: readonly LanguageRouting[]; layer: number; experts: readonly string[] }) {
  const { layer, experts } = props
  if (props.routing.every(({ shares }) => (shares[layer] ?? []).length === 0))
    return <p>{text.value.denseLayer}</p>
  return (
    <>
      <h3>{text.value.loadMap(layer)}</h3>
      <Scroll label={text.value.loadMap(layer)} name="map">
        <table>
          <thead>
            <tr>
              <th scope="col">{text.value.language}</th>
              {experts.map((label) => (
                <th scope="col" key={label}>
                  {label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {props.routing.map(({ language, shares }, i) => (
              <tr key={i}>
                <th scope="row">{language}</th>
                {(shares[layer] ?? []).map((value, e) => (
                  <td key={e} style={paint(value)}>
                    {share(value)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <Legend experts={experts} />
      {props.routing.map(({ language, pieces }, i) => (
        <p key={i} class="answer">
          <strong>{language}</strong> <Tokens pieces={pieces} layer={layer} experts={experts} />
        </p>
      ))}
    </>
  )
}

async function readText(file: File): Promise<LanguageText> {
  return { language: file.name.replace(/\.[^.]*$/, ''), documents: documentsOf(await file.text()) }
}

/** Held-out text that the tiny models were not trained on. */
function readTrioTexts(): Promise<LanguageText[]> {
  return Promise.all(
    TRIO_LANGUAGES.map(async (language) => {
      const content = await (await fetch(`./trio/raw-${language}.txt`)).text()
      return { language, documents: documentsOf(content) }
    }),
  )
}

/** A document on each line. */
function documentsOf(content: string): string[] {
  return content
    .split('\n')
    .filter((line) => line.trim() !== '')
    .slice(0, MAX_DOCUMENTS)
}
