import { type Checkpoint, ModelError } from '@polygraft/tensor'
import { answer, route } from './chat.js'
import type { ChatApi } from './chat-api.js'
import { chatCheckpoint } from './chat-checkpoint.js'
import { type LoadedModel, loadModel } from './chat-model.js'
import { openCheckpoint } from './open-model.js'
import { serve } from './serve.js'

// One model that answers, beside the page and beside the others.
const opened = new Map<string, Checkpoint>()
let loaded: LoadedModel | undefined
let running = new AbortController()

const api: ChatApi = {
  async load({ recipe, part, device, openings }, onProgress) {
    const before = loaded
    loaded = undefined
    await before?.close()
    for (const [key, opening] of openings)
      if (!opened.has(key)) opened.set(key, await openCheckpoint(opening))
    const checkpoint = await chatCheckpoint(recipe, part, (key) => opened.get(key)!)
    loaded = await loadModel(checkpoint, device, onProgress)
    return loaded.described
  },
  answer: (messages, maxNewTokens, onPiece) => answer(current(), messages, maxNewTokens, onPiece, begin()),
  route: (texts) => route(current(), texts, begin()),
  async stop() {
    running.abort(new ModelError({ code: 'cancelled', message: 'Stopped' }))
  },
}

function begin(): AbortSignal {
  running = new AbortController()
  return running.signal
}

function current(): LoadedModel {
  if (loaded) return loaded
  throw new ModelError({ code: 'not-loaded', message: 'No model is loaded' })
}

serve(api)
