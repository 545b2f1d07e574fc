import type { Problem } from '@polygraft/tensor'
import { signal } from '@preact/signals'
import { proxy } from 'comlink'
import { models } from '../state/models.js'
import { go, route } from '../state/route.js'
import { text } from '../state/settings.js'
import { problemsOf, worker } from '../state/worker.js'
import type { Comparison } from '../worker/api.js'
import { DeltaMap } from './delta-map.js'
import { number, share } from './format.js'
import { Meter, ModelChoice, Problems, saveFile } from './parts.js'
import { Scroll } from './scroll.js'

// Outlives a visit to another page.
const result = signal<Comparison | undefined>(undefined)
const problems = signal<readonly Problem[]>([])
const progress = signal<readonly [done: number, total: number] | undefined>(undefined)

/** Two checkpoints: what changed between them. */
export function ComparePage() {
  const { parameters } = route.value
  const keys = [...models.value.keys()]
  const base = parameters.get('base') ?? keys[0] ?? ''
  const post = parameters.get('post') ?? keys[1] ?? ''
  const isReady = models.value.has(base) && models.value.has(post)
  return (
    <>
      <h1>{text.value.compare}</h1>
      {!isReady && <p class="muted">{text.value.compareTwo}</p>}
      <div class="row">
        <ModelChoice
          label={text.value.from}
          value={base}
          onChange={(key) => go('compare', { base: key, post })}
        />
        <ModelChoice
          label={text.value.to}
          value={post}
          onChange={(key) => go('compare', { base, post: key })}
        />
        <button
          type="button"
          class="primary"
          disabled={!isReady || !!progress.value}
          onClick={() => start(base, post)}
        >
          {text.value.startCompare}
        </button>
      </div>
      {progress.value && (
        <Meter done={progress.value[0]} total={progress.value[1]} onCancel={() => worker().cancel()} />
      )}
      <Problems problems={problems.value} />
      {result.value && <Result comparison={result.value} />}
    </>
  )
}

async function start(base: string, post: string): Promise<void> {
  problems.value = []
  result.value = undefined
  progress.value = [0, 1]
  const onProgress = (done: number, total: number) => {
    progress.value = [done, total]
  }
  try {
    result.value = await worker().compare(base, post, proxy(onProgress))
  } catch (error) {
    problems.value = problemsOf(error)
  } finally {
    progress.value = undefined
  }
}

function Result({ comparison }: { comparison: Comparison }) {
  const save = () =>
    saveFile('diff.json', new Blob([JSON.stringify(comparison)], { type: 'application/json' }))
  return (
    <>
      <Problems problems={comparison.warnings} kind="warning" />
      <DeltaMap comparison={comparison} />
      <div class="title">
        <h2>{text.value.ranked}</h2>
        <button type="button" onClick={save}>
          {text.value.saveJson}
        </button>
      </div>
      <Ranked comparison={comparison} />
    </>
  )
}

function Ranked({ comparison: { tensors, groups, total } }: { comparison: Comparison }) {
  const lines = [total, ...Object.values(groups), ...tensors]
  return (
    <Scroll label={text.value.ranked} name="ranked">
      <table>
        <thead>
          <tr>
            <th scope="col">{text.value.tensor}</th>
            <th scope="col">{text.value.relativeNorm}</th>
            <th scope="col">{text.value.norm}</th>
            <th scope="col">{text.value.cosine}</th>
            <th scope="col">{text.value.changedShare}</th>
            <th scope="col">{text.value.largest}</th>
          </tr>
        </thead>
        <tbody>
          {lines.map((line, i) => (
            <tr key={`${line.name} ${i}`} class={line.group === undefined ? 'sum' : ''}>
              <th scope="row">{line === total ? text.value.total : line.name}</th>
              <td class="number">{number(line.relativeNorm)}</td>
              <td class="number">{number(line.norm)}</td>
              <td class="number">{Number.isNaN(line.cosine) ? '' : line.cosine.toFixed(6)}</td>
              <td class="number">{share(line.changedShare)}</td>
              <td class="number">{number(line.maxAbs)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  )
}
