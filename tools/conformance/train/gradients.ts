/**
 * Loss and gradients of `@polygraft/train` for gradients.py: reads <folder>/model (config.json, model.safetensors in F32) and
 * <folder>/batch.json, writes <folder>/loss.json and <folder>/gradients.safetensors.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { formatSafetensors, readSafetensors } from '@polygraft/tensor-io'
import {
  type Batch,
  createWorkspace,
  decoderSpec,
  lossAndGradients,
  type RouterLosses,
} from '@polygraft/train'

interface Given {
  readonly tokens: readonly number[]
  readonly targets: readonly number[]
  readonly segments: Batch['segments']
  readonly losses: RouterLosses
}

for (const folder of process.argv.slice(2)) await measure(folder)

async function measure(folder: string): Promise<void> {
  const config = JSON.parse(readFileSync(`${folder}/model/config.json`, 'utf8'))
  const given: Given = JSON.parse(readFileSync(`${folder}/batch.json`, 'utf8'))
  const bytes = readFileSync(`${folder}/model/model.safetensors`)
  const { tensors } = await readSafetensors(new Blob([bytes]), 'model.safetensors')
  const workspace = createWorkspace()
  const values = new Map(
    [...tensors].map(([name, { begin, end }]) => {
      const value = workspace.allocate((end - begin) / 4)
      value.set(new Float32Array(bytes.buffer.slice(bytes.byteOffset + begin, bytes.byteOffset + end)))
      return [name, value]
    }),
  )
  const gradients = new Map(
    [...values].map(([name, { length }]) => [name, workspace.allocate(length).fill(0)]),
  )
  const batch = {
    tokens: Int32Array.from(given.tokens),
    targets: Int32Array.from(given.targets),
    segments: given.segments,
  }
  const loss = lossAndGradients(decoderSpec(config), values, gradients, batch, {
    losses: given.losses,
    workspace,
  })
  writeFileSync(`${folder}/loss.json`, JSON.stringify({ loss }))
  const layout = formatSafetensors([...tensors].map(([name, { dtype, shape }]) => [name, { dtype, shape }]))
  const out = new Uint8Array(layout.size)
  out.set(layout.header)
  for (const [name, { begin }] of layout.tensors)
    out.set(new Uint8Array(Float32Array.from(gradients.get(name)!).buffer), begin)
  writeFileSync(`${folder}/gradients.safetensors`, out)
}
