import { writeCheckpoint } from '@polygraft/engine'
import { type Checkpoint, ModelError } from '@polygraft/tensor'
import { version } from '../../package.json'
import type { Api } from './api.js'
import { build, outlookOf } from './build.js'
import { compare } from './compare.js'
import { describeModel, openCheckpoint } from './open-model.js'
import { createOutput, readOutput } from './output-folder.js'
import { serve } from './serve.js'
import { viewTensor } from './view-tensor.js'

// Everything that reads or computes, beside the page.
const opened = new Map<string, Checkpoint>()
let running = new AbortController()

const api: Api = {
  async open(key, opening) {
    const checkpoint = await openCheckpoint(opening)
    opened.set(key, checkpoint)
    const name = opening.kind === 'url' ? opening.location : opening.name
    return describeModel(key, name, checkpoint)
  },
  async close(key) {
    opened.delete(key)
  },
  view: (key, tensor) => viewTensor(find(key), tensor),
  compare(base, post, onProgress) {
    const locate = (key: string) => [...find(key).sources.values()][0]?.location ?? key
    return compare(find(base), find(post), { base: locate(base), post: locate(post) }, onProgress, begin())
  },
  plan: (recipe) => outlookOf(recipe, find),
  async run(recipe, target, onProgress) {
    const signal = begin()
    const { checkpoint, problems } = await build(recipe, find)
    if (!checkpoint) throw new ModelError(problems)
    const folder = await createOutput(target)
    try {
      const shown = ({ bytesDone, bytesTotal }: { bytesDone: number; bytesTotal: number }) =>
        onProgress(bytesDone, bytesTotal)
      return await writeCheckpoint(checkpoint, folder, { version, signal, onProgress: shown })
    } catch (error) {
      await folder.discard().catch(() => undefined)
      throw error
    }
  },
  async cancel() {
    running.abort(new ModelError({ code: 'cancelled', message: 'Cancelled; nothing was written' }))
  },
  outputFiles: readOutput,
}

function begin(): AbortSignal {
  running = new AbortController()
  return running.signal
}

function find(key: string): Checkpoint {
  const checkpoint = opened.get(key)
  if (checkpoint) return checkpoint
  throw new ModelError({ code: 'not-open', message: 'This checkpoint is not open', received: key })
}

serve(api)
