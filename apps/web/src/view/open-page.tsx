import { useSignal } from '@preact/signals'
import { directoryOpen, fileOpen } from 'browser-fs-access'
import { closeModel, models, opening, openModel, openProblems, openTrio } from '../state/models.js'
import { hrefOf } from '../state/parse-route.js'
import { go } from '../state/route.js'
import { text } from '../state/settings.js'
import type { Model } from '../worker/api.js'
import { readDropped } from './dropped.js'
import { bytes, count } from './format.js'
import { Problems } from './parts.js'

/** Where checkpoints are opened, and what is open. */
export function OpenPage() {
  return (
    <>
      <section class="hero">
        <h1>{text.value.tagline}</h1>
        <p>{text.value.lead}</p>
      </section>
      <div class="cards">
        <TrioCard />
        <FilesCard />
        <UrlCard />
      </div>
      <div aria-live="polite">{opening.value.length > 0 && <p class="muted">{text.value.opening}</p>}</div>
      <Problems problems={openProblems.value} />
      <h2>{text.value.openModels}</h2>
      {models.value.size === 0 ? <p class="muted">{text.value.nothingOpen}</p> : <ModelList />}
    </>
  )
}

function TrioCard() {
  const start = async () => {
    await openTrio()
    if (models.value.has('trio:cpt')) go('inspect', { model: 'trio:cpt' })
  }
  return (
    <section class="card accent">
      <h2>{text.value.trioTitle}</h2>
      <p>{text.value.trioText}</p>
      <button type="button" class="primary" disabled={opening.value.length > 0} onClick={start}>
        {text.value.trioButton}
      </button>
    </section>
  )
}

function FilesCard() {
  const isOver = useSignal(false)
  const drop = async (event: DragEvent) => {
    event.preventDefault()
    isOver.value = false
    if (event.dataTransfer) await openFiles(await readDropped(event.dataTransfer))
  }
  const drag = (event: DragEvent) => {
    event.preventDefault()
    isOver.value = true
  }
  return (
    <section
      class={isOver.value ? 'card drop over' : 'card drop'}
      aria-label={text.value.filesTitle}
      onDrop={drop}
      onDragOver={drag}
      onDragLeave={() => {
        isOver.value = false
      }}
    >
      <h2>{text.value.filesTitle}</h2>
      <p>{text.value.filesText}</p>
      <div class="row">
        <button type="button" onClick={() => pick(() => directoryOpen({ recursive: true }))}>
          {text.value.pickFolder}
        </button>
        <button type="button" onClick={() => pick(() => fileOpen({ multiple: true }))}>
          {text.value.pickFiles}
        </button>
      </div>
    </section>
  )
}

function UrlCard() {
  const location = useSignal('')
  const submit = async (event: Event) => {
    event.preventDefault()
    openProblems.value = []
    const model = location.value && (await openModel({ kind: 'url', location: location.value.trim() }))
    if (model) go('inspect', { model: model.key })
  }
  return (
    <section class="card">
      <h2>{text.value.urlTitle}</h2>
      <p>{text.value.urlText}</p>
      <form onSubmit={submit}>
        <label class="field">
          <span>{text.value.urlLabel}</span>
          <input
            type="text"
            inputMode="url"
            autocomplete="off"
            spellcheck={false}
            value={location.value}
            onInput={(event) => {
              location.value = event.currentTarget.value
            }}
          />
        </label>
        <button type="submit">{text.value.open}</button>
      </form>
    </section>
  )
}

function ModelList() {
  return (
    <ul class="models">
      {[...models.value.values()].map((model) => (
        <ModelItem key={model.key} model={model} />
      ))}
    </ul>
  )
}

function ModelItem({ model }: { model: Model }) {
  const { key, name, parameters, bytes: size, architecture } = model
  return (
    <li class="card">
      <a href={hrefOf('inspect', { model: key })}>
        <strong>{name}</strong>
      </a>
      <span class="muted">
        {architecture} · {count(parameters)} · {bytes(size)}
      </span>
      <button type="button" aria-label={`${text.value.close} ${name}`} onClick={() => closeModel(key)}>
        {text.value.close}
      </button>
    </li>
  )
}

async function pick(choose: () => Promise<unknown>): Promise<void> {
  // Whoever closes the picker wants nothing.
  const chosen = await choose().catch(() => [])
  const files = (Array.isArray(chosen) ? chosen : [chosen]).filter((file) => file instanceof File)
  await openFiles(new Map(files.map((file) => [file.webkitRelativePath || file.name, file])))
}

async function openFiles(files: ReadonlyMap<string, File>): Promise<void> {
  if (files.size === 0) return
  openProblems.value = []
  const [first = ''] = files.keys()
  const model = await openModel({ kind: 'files', name: first.split('/')[0]!, files })
  if (model) go('inspect', { model: model.key })
}
