import { useSignal } from '@preact/signals'
import { models, opening } from '../state/models.js'
import { hrefOf } from '../state/parse-route.js'
import { go, route } from '../state/route.js'
import { text } from '../state/settings.js'
import type { Model } from '../worker/api.js'
import { Architecture } from './architecture.js'
import { bytes, count } from './format.js'
import { Facts, ModelChoice } from './parts.js'
import { TensorPanel } from './tensor-panel.js'
import { TensorTable } from './tensor-table.js'

/** One checkpoint: facts, picture, tensors, values. */
export function InspectPage() {
  const key = route.value.parameters.get('model') ?? ''
  const model = models.value.get(key) ?? (key === '' ? [...models.value.values()].at(-1) : undefined)
  if (!model)
    return (
      <>
        <h1>{text.value.inspect}</h1>
        <p class="muted">{opening.value.length > 0 ? text.value.opening : text.value.nothingOpen}</p>
        <a href={hrefOf('open')}>{text.value.open}</a>
      </>
    )
  return <Inspection key={model.key} model={model} />
}

function Inspection({ model }: { model: Model }) {
  const filter = useSignal('')
  const tensor = route.value.parameters.get('tensor') ?? ''
  return (
    <>
      <div class="title">
        <h1>{model.name}</h1>
        <ModelChoice
          label={text.value.checkpoint}
          value={model.key}
          onChange={(key) => go('inspect', { model: key })}
        />
      </div>
      <ModelFacts model={model} />
      {model.familyProblem !== undefined && <p class="problems warning">{text.value.noFamily}</p>}
      {model.isFetchedWhole && <p class="problems warning">{text.value.fetchedWhole(bytes(model.bytes))}</p>}
      <div class="columns">
        <section>
          <h2>{text.value.architecture}</h2>
          <p class="muted">{text.value.architectureHint}</p>
          <Architecture model={model} filter={filter} />
        </section>
        <section>
          <h2>{text.value.tensors}</h2>
          <TensorTable model={model} filter={filter} chosen={tensor} />
        </section>
      </div>
      <section>
        <h2>{text.value.values}</h2>
        {tensor ? (
          <TensorPanel key={tensor} model={model} tensor={tensor} />
        ) : (
          <p class="muted">{text.value.pickTensor}</p>
        )}
      </section>
    </>
  )
}

function ModelFacts({ model }: { model: Model }) {
  const { architecture, parameters, active, numExperts, topK, dtypes, experts, madeBy } = model
  const mixture =
    numExperts === undefined
      ? undefined
      : `${(experts ?? []).join(', ') || numExperts} · ${text.value.topK(topK ?? 1, numExperts)}`
  return (
    <Facts
      facts={[
        [text.value.architecture, architecture || undefined],
        [text.value.parameters, count(parameters)],
        [text.value.active, active === undefined ? undefined : count(active)],
        [text.value.size, bytes(model.bytes)],
        [text.value.dtype, dtypes.join(', ')],
        [text.value.experts, mixture],
        [text.value.madeBy, madeBy.length > 0 ? madeBy.join(' → ') : undefined],
      ]}
    />
  )
}
