import { createHash } from 'node:crypto'
import { existsSync, watch } from 'node:fs'
import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, it } from 'vitest'
import { createTemp, start, writeModel } from './support.js'

const KILLS = 100
/** Runs side by side, each into an output of its own. */
const LANES = 2
const INPUTS = ['base', 'cpt', 'instruct']
const CONFIG = { vocab_size: 512, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 8 }

let temp: Awaited<ReturnType<typeof createTemp>>
let expected = new Map<string, string>()
/** How long an undisturbed run works, from the first trace of its output on, so that kills fall everywhere in it. */
let workMs = 0

beforeAll(async () => {
  temp = await createTemp()
  for (const [seed, name] of INPUTS.entries()) await writeModel(temp.at(name), { seed, config: CONFIG })
  const began = begins('expected')
  const ended = graft('expected')
  await began
  const started = performance.now()
  expect(await ended).toBe(0)
  workMs = performance.now() - started
  expected = await digestsOf('expected')
  expect([...expected.keys()].filter((file) => file.endsWith('.safetensors')).length).toBeGreaterThan(4)
})

it(`ends in the same bytes after ${KILLS} kills at random points`, async () => {
  let published = 0
  let resumed = 0
  const killOften = async (_: unknown, lane: number) => {
    const out = `out-${lane}`
    for (let kill = 0; kill < KILLS / LANES; kill++) {
      const code = await graft(out, Math.random() * workMs)
      const notes = await readdir(temp.at(`.${out}.polygraft/notes`)).catch(() => [])
      if (notes.length > 0) resumed++
      // Readers see the whole checkpoint or none.
      if (code !== 0 && !existsSync(temp.at(out))) continue
      expect(await digestsOf(out)).toEqual(expected)
      await rm(temp.at(out), { recursive: true })
      published++
    }
    await rm(temp.at(out), { recursive: true, force: true })
    expect(await graft(out)).toBe(0)
    expect(await digestsOf(out)).toEqual(expected)
  }
  const lanes = Array.from({ length: LANES }, (_, lane) => `out-${lane}`)
  await Promise.all(lanes.map(killOften))
  expect((await readdir(temp.dir)).sort()).toEqual([...INPUTS, 'expected', ...lanes].sort())
  // Otherwise the kills fell before or after the work, and the test shows nothing.
  expect(resumed).toBeGreaterThan(KILLS / 20)
  expect(published).toBeLessThan(KILLS)
}, 300_000)

/** Runs the graft; with `killMs`, kills it so long after it began to write. @returns the exit code, or null. */
async function graft(out: string, killMs?: number): Promise<number | null> {
  const args = [
    'graft',
    temp.at('cpt'),
    '-o',
    temp.at(out),
    '--base',
    temp.at('base'),
    '--post',
    temp.at('instruct'),
  ]
  const began = killMs === undefined ? undefined : begins(out)
  const child = start([...args, '--max-shard-size', '1MB', '--threads', '2'])
  const ended = child.ended.then(({ code }) => code)
  await Promise.race([began, ended])
  const timer = killMs === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killMs)
  return ended.finally(() => clearTimeout(timer))
}

/** Waits for the first trace of a run into `out`: its lock. */
function begins(out: string): Promise<void> {
  return new Promise((resolve) => {
    const watcher = watch(existsSync(temp.at(`.${out}.polygraft`)) ? temp.at(`.${out}.polygraft`) : temp.dir)
    watcher.on('change', (_, name) => {
      if (name !== `.${out}.polygraft` && !`${name}`.startsWith('lock')) return
      watcher.close()
      resolve()
    })
  })
}

async function digestsOf(out: string): Promise<Map<string, string>> {
  const files = (await readdir(temp.at(out))).sort()
  const digestOf = async (file: string) =>
    createHash('sha256')
      .update(await readFile(join(temp.at(out), file)))
      .digest('hex')
  return new Map(await Promise.all(files.map(async (file) => [file, await digestOf(file)] as const)))
}
