import { useSignal } from '@preact/signals'
import { models } from '../state/models.js'
import { chosen } from '../state/recipe.js'
import { text } from '../state/settings.js'
import type { Recipe } from '../worker/api.js'
import { parseLanguages } from './parse-languages.js'
import { ModelChoice, Slider } from './parts.js'

const TARGETS: readonly Recipe['target'][] = ['auto', 'mixtral', 'qwen2_moe', 'qwen3_moe', 'granitemoe']

/** What is to be built. */
export function RecipeForm({ recipe }: { recipe: Recipe }) {
  const { base, post, cpt, languages, lambda, expertLambda, layerLambda } = recipe
  const choose = (part: Partial<Recipe> | { post: undefined } | { cpt: undefined }) => {
    chosen.value = { ...chosen.value, ...part } as Partial<Recipe>
  }
  const isMixture = (key: string) => models.value.get(key)?.numExperts !== undefined
  const isDense = (key: string) => !isMixture(key)
  const labels = expertsOf(recipe)
  return (
    <form class="card" onSubmit={(event) => event.preventDefault()}>
      <ModelChoice
        label={text.value.base}
        value={base}
        isFitting={isDense}
        onChange={(key) => choose({ base: key })}
      />
      <ModelChoice
        label={text.value.post}
        value={post ?? ''}
        empty={text.value.none}
        isFitting={isDense}
        onChange={(key) => choose({ post: key || undefined } as Partial<Recipe>)}
      />
      {post !== undefined && (
        <ModelChoice
          label={text.value.cpt}
          value={cpt ?? ''}
          empty={text.value.upcycleBase}
          isFitting={isMixture}
          onChange={(key) => choose({ cpt: key || undefined } as Partial<Recipe>)}
        />
      )}
      {cpt === undefined && (
        <>
          <Languages languages={languages} onChange={(names) => choose({ languages: names })} />
          <Target value={recipe.target} onChange={(target) => choose({ target })} />
        </>
      )}
      {post !== undefined && (
        <fieldset>
          <legend>{text.value.lambda}</legend>
          <Slider label="λ" value={lambda} onChange={(value) => choose({ lambda: value })} />
          {labels.map((label, expert) => (
            <Slider
              key={label}
              label={text.value.expertLambda(label)}
              value={expertLambda[expert] ?? 1}
              onChange={(value) => choose({ expertLambda: factors(expertLambda, expert, value) })}
            />
          ))}
          <details>
            <summary>{text.value.byLayerLambda}</summary>
            {layersOf(base).map((layer) => (
              <Slider
                key={layer}
                label={`${text.value.layer} ${layer}`}
                value={layerLambda[layer] ?? 1}
                onChange={(value) => choose({ layerLambda: factors(layerLambda, layer, value) })}
              />
            ))}
          </details>
        </fieldset>
      )}
    </form>
  )
}

/** What is being typed stays as it is, however often the plan changes meanwhile. */
function Languages(props: { languages: readonly string[]; onChange: (names: readonly string[]) => void }) {
  const draft = useSignal(props.languages.join(', '))
  return (
    <label class="field">
      <span>{text.value.languages}</span>
      <input
        type="text"
        value={draft.value}
        aria-describedby="languages-hint"
        onInput={(event) => {
          draft.value = event.currentTarget.value
          props.onChange(parseLanguages(draft.value))
        }}
      />
      <span id="languages-hint">{text.value.languagesHint}</span>
    </label>
  )
}

/** The family that the mixture is to be of; the plan says where a base does not fit. */
function Target({
  value,
  onChange,
}: {
  value: Recipe['target']
  onChange: (target: Recipe['target']) => void
}) {
  return (
    <label class="field">
      <span>{text.value.target}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value as Recipe['target'])}>
        {TARGETS.map((name) => (
          <option key={name} value={name}>
            {name === 'auto' ? text.value.fitting : name}
          </option>
        ))}
      </select>
    </label>
  )
}

/** Numbers of a checkpoint's layers. */
function layersOf(key: string): readonly number[] {
  const layers = (models.value.get(key)?.tensors ?? []).flatMap(({ layer }) => layer ?? [])
  return [...new Set(layers)].sort((a, b) => a - b)
}

/** Labels of the experts that the recipe will have. */
function expertsOf({ cpt, languages }: Recipe): readonly string[] {
  const model = cpt === undefined ? undefined : models.value.get(cpt)
  if (!model) return ['original', ...languages]
  return model.experts ?? Array.from({ length: model.numExperts ?? 0 }, (_, expert) => `${expert}`)
}

function factors(known: Recipe['expertLambda'], expert: number, value: number): Recipe['expertLambda'] {
  const others = Object.entries({ ...known, [expert]: value }).filter(([, factor]) => factor !== 1)
  return Object.fromEntries(others)
}
