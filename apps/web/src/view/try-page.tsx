import { useSignal } from '@preact/signals'
import { ask, clear, columns, device, isBusy, partsOf, prompts, regenerate, stop } from '../state/chat.js'
import { models, opening, openTrio } from '../state/models.js'
import { chosen, recipeOf } from '../state/recipe.js'
import { text } from '../state/settings.js'
import type { Recipe } from '../worker/api.js'
import type { Device, Part } from '../worker/chat-api.js'
import { ChatColumn } from './chat-column.js'
import { number } from './format.js'
import { Slider } from './parts.js'
import { RoutingPanel } from './routing-panel.js'

/** Questions that the tiny trio was trained to answer: to repeat words, in each of its languages. */
const TRIO_EXAMPLES = ['kona : rina dima', 'fofu : pame lemi', 'fage : bozu dolu disa', 'kavi : dule pame']

/** Talk to a recipe's models side by side, its result among them before it is written. */
export function TryPage() {
  const recipe = recipeOf()
  return (
    <>
      <h1>{text.value.try}</h1>
      <p>{text.value.tryText}</p>
      {recipe ? <Conversation recipe={recipe} /> : <Start />}
    </>
  )
}

function Start() {
  return (
    <div class="row">
      <p>{text.value.needsBase}</p>
      <button type="button" class="primary" disabled={opening.value.length > 0} onClick={openTrio}>
        {text.value.trioButton}
      </button>
    </div>
  )
}

function Conversation({ recipe }: { recipe: Recipe }) {
  const layer = useSignal(0)
  const numLayers = Math.max(1, ...[...columns.value.values()].map(({ model }) => model?.numLayers ?? 1))
  const shown = (part: Part) =>
    columns.value.get(part) ??
    ({ part, status: 'idle', progress: [0, 1], answers: [], problems: [] } as const)
  return (
    <>
      <div class="controls card">
        <DeviceChoice />
        <Slider
          label={`${text.value.layer}`}
          value={layer.value}
          max={numLayers - 1}
          step={1}
          onChange={(value) => {
            layer.value = value
          }}
        />
        {recipe.post !== undefined && <Lambda recipe={recipe} />}
      </div>
      <Question recipe={recipe} />
      <div class="chats">
        {partsOf(recipe).map((part) => (
          <ChatColumn key={part} column={shown(part)} layer={layer.value} />
        ))}
      </div>
      <RoutingPanel recipe={recipe} layer={layer.value} />
    </>
  )
}

function DeviceChoice() {
  const hasGpu = 'gpu' in navigator
  return (
    <label class="field">
      <span>{text.value.device}</span>
      <select
        value={device.value}
        onChange={(event) => {
          device.value = event.currentTarget.value as Device
        }}
      >
        <option value="cpu">CPU</option>
        <option value="webgpu" disabled={!hasGpu}>
          {hasGpu ? 'WebGPU' : text.value.noWebGpu}
        </option>
      </select>
    </label>
  )
}

/** The graft follows the slider: when it is let go, the last question is answered anew. */
function Lambda({ recipe }: { recipe: Recipe }) {
  return (
    <Slider
      label={text.value.lambda}
      value={recipe.lambda}
      onChange={(lambda) => {
        chosen.value = { ...chosen.value, lambda }
      }}
      onRelease={(lambda) => regenerate({ ...recipe, lambda }, 'result')}
    />
  )
}

function Question({ recipe }: { recipe: Recipe }) {
  const draft = useSignal('')
  const isTrio = [...models.value.keys()].some((key) => key.startsWith('trio:'))
  const send = (question: string) => {
    if (question.trim() === '' || isBusy()) return
    draft.value = ''
    ask(recipe, question.trim())
  }
  return (
    <form
      class="question"
      onSubmit={(event) => {
        event.preventDefault()
        send(draft.value)
      }}
    >
      <label class="field">
        <span>{text.value.question}</span>
        <textarea
          rows={2}
          value={draft.value}
          onInput={(event) => {
            draft.value = event.currentTarget.value
          }}
          onKeyDown={(event) => {
            if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
            event.preventDefault()
            send(draft.value)
          }}
        />
      </label>
      <div class="row">
        <button type="submit" class="primary" disabled={isBusy()}>
          {text.value.send}
        </button>
        <button type="button" disabled={!isBusy()} onClick={stop}>
          {text.value.stop}
        </button>
        <button type="button" disabled={isBusy() || prompts.value.length === 0} onClick={clear}>
          {text.value.clear}
        </button>
        {isTrio &&
          TRIO_EXAMPLES.map((example) => (
            <button
              type="button"
              key={example}
              class="example"
              disabled={isBusy()}
              onClick={() => send(example)}
            >
              {example}
            </button>
          ))}
      </div>
      <p class="hidden" aria-live="polite">
        {isBusy() ? text.value.working : text.value.answers(number(prompts.value.length))}
      </p>
    </form>
  )
}
