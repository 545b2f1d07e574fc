// What runs in Chromium's page: the suites of packages/webgpu and packages/model, and a chat with the trio's instruct model on both devices.
import {
  type Backend,
  createCpuBackend,
  createGenerator,
  openModel,
  openTokenizer,
  readEndTokens,
} from '@polygraft/model'
import { openFiles } from '@polygraft/tensor-io'
import { createDecoderBackend, createGpu, type Gpu } from '@polygraft/webgpu'
import { MODEL_CASES } from '../../packages/model/test/webgpu/index.js'
import { type Outcome, runCase, SUITE } from '../../packages/webgpu/test/suite/index.js'

/** What the page offers to the program that opened it. */
export interface Page {
  /** The adapter's name. */
  open(): Promise<string>
  readonly names: readonly string[]
  run(name: string): Promise<Outcome>
}

/** Files of the checkpoint that the page is given under `/checkpoint/`. */
const CHECKPOINT_FILES = [
  ...['config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json'],
  ...['tokenizer_config.json', 'chat_template.jinja'],
]

const QUESTION = 'kona : rina dima'
const ANSWER = 'rina dima'

const chat = {
  name: 'a chat: the same answer on the CPU and on the GPU',
  async run(gpu: Gpu) {
    for (const backend of [await createCpuBackend(), createDecoderBackend(gpu)]) {
      const text = await answer(backend)
      await backend.close()
      if (text !== ANSWER) throw new Error(`${backend.name}: ${JSON.stringify(text)}`)
    }
  },
}

async function answer(backend: Backend): Promise<string> {
  const fetched = CHECKPOINT_FILES.map(async (name) => {
    const response = await fetch(`/checkpoint/${name}`)
    if (!response.ok) throw new Error(`${name}: ${response.status}`)
    return [name, await response.blob()] as const
  })
  const checkpoint = await openFiles(new Map(await Promise.all(fetched)), 'the trio')
  const model = await openModel(checkpoint, { backend })
  const tokenizer = await openTokenizer(checkpoint)
  const generator = createGenerator(model, tokenizer)
  const prompt = tokenizer.encodeChat([{ role: 'user', content: QUESTION }])
  let text = ''
  for await (const piece of generator.stream(prompt, { endTokens: await readEndTokens(checkpoint) }))
    text += piece
  generator.close()
  await model.close()
  return text
}

let gpu: Gpu | undefined
const cases = new Map([...SUITE, ...MODEL_CASES, chat].map((each) => [each.name, each]))
const page: Page = {
  async open() {
    gpu = await createGpu()
    return gpu.name
  },
  names: [...cases.keys()],
  run: (name) => runCase(gpu!, cases.get(name)!),
}
Object.assign(globalThis, { page })
