import type { Manifest } from '@polygraft/engine'
import { useSignal } from '@preact/signals'
import { outcome, outlook, running, runProblems } from '../state/recipe.js'
import { text } from '../state/settings.js'
import { worker } from '../state/worker.js'
import type { Target } from '../worker/api.js'
import { bytes, share } from './format.js'
import { Meter, Problems, saveFile } from './parts.js'

type PickFolder = (options: { mode: 'readwrite' }) => Promise<FileSystemDirectoryHandle>

/** Runs the plan, and shows what came out. */
export function RunPanel(props: { run: (target: Target) => void; openResult: (name: string) => void }) {
  const { run, openResult } = props
  const name = useSignal('grafted')
  const isReady = outlook.value?.figures !== undefined && !running.value && name.value.trim() !== ''
  const pick = (globalThis as { showDirectoryPicker?: PickFolder }).showDirectoryPicker
  const intoFolder = async () => {
    // Whoever closes the picker wants nothing.
    const folder = await pick!({ mode: 'readwrite' }).catch(() => undefined)
    if (folder) run({ kind: 'folder', folder, name: name.value.trim() })
  }
  return (
    <section class="card">
      <h2>{text.value.run}</h2>
      <label class="field">
        <span>{text.value.outputName}</span>
        <input
          type="text"
          value={name.value}
          onInput={(event) => {
            name.value = event.currentTarget.value
          }}
        />
      </label>
      <div class="row">
        <button
          type="button"
          class="primary"
          disabled={!isReady}
          onClick={() => run({ kind: 'storage', name: name.value.trim() })}
        >
          {text.value.intoBrowser}
        </button>
        {pick && (
          <button type="button" disabled={!isReady} onClick={intoFolder}>
            {text.value.intoFolder}
          </button>
        )}
      </div>
      {running.value && (
        <Meter done={running.value[0]} total={running.value[1]} onCancel={() => worker().cancel()} />
      )}
      <Problems problems={runProblems.value} />
      <div aria-live="polite">{outcome.value && <Written {...outcome.value} openResult={openResult} />}</div>
    </section>
  )
}

function Written(props: { manifest: Manifest; target: Target; openResult: (name: string) => void }) {
  const { manifest, target, openResult } = props
  const { name } = target
  const save = async () => {
    for (const [file, content] of await worker().outputFiles(name)) saveFile(file, content)
  }
  return (
    <>
      <h3>
        {text.value.done}: {name}
      </h3>
      {manifest.delta && (
        <p>
          {share(manifest.delta.swallowedFraction)} {text.value.swallowed}
        </p>
      )}
      <h3>{text.value.digests}</h3>
      <ul class="digests">
        {manifest.shards.map(({ file, bytes: size, sha256 }) => (
          <li key={file}>
            {file} ({bytes(size)})<br />
            <code>{sha256}</code>
          </li>
        ))}
      </ul>
      {target.kind === 'storage' && (
        <div class="row">
          <button type="button" onClick={() => openResult(name)}>
            {text.value.openResult}
          </button>
          <button type="button" onClick={save}>
            {text.value.save}
          </button>
        </div>
      )}
    </>
  )
}
