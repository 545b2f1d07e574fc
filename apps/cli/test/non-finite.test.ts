// Elements that are computed and are NaN or infinite: warned of, allowed or refused.

import { existsSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, it } from 'vitest'
import { BASE, CPT, copyOf, createTemp, INSTRUCT, problemOf, run, runJson, succeed } from './support.js'

let temp: Awaited<ReturnType<typeof createTemp>>
let broken: string

beforeAll(async () => {
  temp = await createTemp()
  broken = await copyOf(INSTRUCT, temp.at('broken'))
  const path = join(broken, 'model.safetensors')
  const bytes = await readFile(path)
  bytes.writeUInt16LE(0x7fc0, bytes.length - 2) // the last element of the last tensor: NaN in BF16
  await writeFile(path, bytes)
})

const graft = (out: string, ...more: string[]) => [
  ...['graft', CPT, '-o', temp.at(out), '--base', BASE, '--post', broken],
  ...more,
]

it('warns by default, and is silent when told to; the manifest has them either way', async () => {
  const warned = await run(graft('warned'))
  expect(warned).toMatchObject({ code: 0, stdout: expect.stringContaining('are NaN or infinite') })
  const allowed = await run(graft('allowed', '--non-finite', 'allow'))
  expect(allowed).toMatchObject({ code: 0, stdout: expect.not.stringContaining('infinite') })
  const manifests = ['warned', 'allowed'].map((out) => readFile(join(temp.at(out), 'polygraft.json'), 'utf8'))
  const [first, second] = await Promise.all(manifests)
  expect(JSON.parse(first!).nonFinite.fromInputs).toBeGreaterThan(0)
  expect(second).toBe(first)
})

it('writes nothing where they are an error, and names the tensors', async () => {
  const { code, json } = await runJson(graft('refused', '--non-finite', 'error'))
  expect(code).toBe(1)
  const problem = problemOf(json.error.problems, 'non-finite')
  const manifest = JSON.parse(await readFile(join(temp.at('warned'), 'polygraft.json'), 'utf8'))
  expect(Object.keys(manifest.nonFinite.tensors)).toContain(problem.tensor)
  expect((await readdir(temp.dir)).filter((name) => name.includes('refused'))).toEqual([])
  const finite = ['graft', CPT, '-o', temp.at('finite'), '--base', BASE, '--post', INSTRUCT]
  await succeed([...finite, '--non-finite', 'error'])
})

it('takes the decision of a plan when it is finished', async () => {
  const plan = temp.at('plan.json')
  const early = await runJson(graft('planned', '--plan', plan, '--non-finite', 'error'))
  expect(problemOf(early.json.error.problems, 'bad-option').next).toContain('finish')
  await succeed(graft('planned', '--plan', plan))
  await succeed(['run', plan])
  const refused = await runJson(['finish', plan, '--non-finite', 'error'])
  expect(refused.code).toBe(1)
  problemOf(refused.json.error.problems, 'non-finite')
  expect(existsSync(temp.at('planned'))).toBe(false)
  await succeed(['finish', plan, '--non-finite', 'allow'])
  expect(existsSync(temp.at('planned'))).toBe(true)
})
