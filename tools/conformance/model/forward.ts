// For each request on stdin: logits of the prompt, all at once, what entered its layers, and a greedy continuation token by token.
// JSON on stdout.

import { createCpuBackend, openModel, sampleToken } from '@polygraft/model'
import { openFolder } from '@polygraft/tensor-io/node'

interface Request {
  readonly name: string
  readonly folder: string
  readonly prompt: readonly number[]
  readonly tokens: readonly number[]
}

async function forward({ folder, prompt, tokens: expected }: Request) {
  const backend = await createCpuBackend()
  try {
    const model = await openModel(await openFolder(folder), { backend })
    const cache = model.createCache(prompt.length + expected.length)
    const hidden: number[][] = []
    const logits = await model.forward([{ cache, begin: 0, tokens: prompt, wanted: 'all' }], {
      layerInput: (_, values) => hidden.push([...values]),
    })
    const tokens: number[] = []
    let last: Float32Array = logits.slice(-model.dimensions.vocabularySize)
    for (let begin = prompt.length; tokens.length < expected.length; begin++) {
      tokens.push(sampleToken(last, {}, begin))
      last = await model.forward([{ cache, begin, tokens: tokens.slice(-1) }])
    }
    return { logits: [...logits], hidden, tokens }
  } catch (error) {
    return { error: String(error) }
  } finally {
    await backend.close()
  }
}

let text = ''
for await (const part of process.stdin.setEncoding('utf8')) text += part
const results: Record<string, object> = {}
for (const request of JSON.parse(text) as Request[]) results[request.name] = await forward(request)
process.stdout.write(JSON.stringify(results))
