import { createHash } from 'node:crypto'
import { existsSync, type FSWatcher, watch } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
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
/** How often an undisturbed run changes a name beside its output: kills are set by that, whatever else the machine does. */
let usualChanges = 0

beforeAll(async () => {
  temp = await createTemp()
  for (const [seed, name] of INPUTS.entries()) await writeModel(temp.at(name), { seed, config: CONFIG })
  await mkdir(temp.at('expected'))
  const { code, changes } = await graft('expected')
  expect(code).toBe(0)
  usualChanges = changes
  expected = await digestsOf('expected')
  expect([...expected.keys()].filter((file) => file.endsWith('.safetensors')).length).toBeGreaterThan(4)
})

it(`ends in the same bytes after ${KILLS} kills at random points`, async () => {
  let published = 0
  let resumed = 0
  const killOften = async (lane: string) => {
    await mkdir(temp.at(lane))
    for (let kill = 0; kill < KILLS / LANES; kill++) {
      const { code } = await graft(lane, Math.random() * usualChanges)
      const notes = await readdir(temp.at(`${lane}/.out.polygraft/notes`)).catch(() => [])
      if (notes.length > 0) resumed++
      // Readers see the whole checkpoint or none.
      if (code !== 0 && !existsSync(temp.at(`${lane}/out`))) continue
      expect(await digestsOf(lane)).toEqual(expected)
      await rm(temp.at(`${lane}/out`), { recursive: true })
      published++
    }
    expect((await graft(lane)).code).toBe(0)
    expect(await digestsOf(lane)).toEqual(expected)
    expect(await readdir(temp.at(lane))).toEqual(['out'])
  }
  await Promise.all(Array.from({ length: LANES }, (_, lane) => killOften(`lane-${lane}`)))
  // Otherwise the kills fell before or after the work, and the test shows nothing.
  expect(resumed).toBeGreaterThan(KILLS / 5)
  expect(published).toBeLessThan(KILLS / 2)
}, 300_000)

/**
 * Runs the graft into `out` of the folder `lane`; with `killAt`, kills it soon after it has changed that many names there
 * and in its hidden folder.
 */
async function graft(
  lane: string,
  killAt = Number.POSITIVE_INFINITY,
): Promise<{ code: number | null; changes: number }> {
  const hidden = temp.at(`${lane}/.out.polygraft`)
  const watchers: FSWatcher[] = []
  let changes = 0
  const changed = () => {
    // Between two changes, too.
    if (++changes > killAt) setTimeout(() => child.kill('SIGKILL'), Math.random() * 5)
    if (watchers.length < 2 && existsSync(hidden)) follow(hidden)
  }
  const follow = (folder: string) =>
    watchers.push(
      watch(folder)
        .on('change', changed)
        .on('error', () => {}),
    )
  follow(temp.at(lane))
  if (existsSync(hidden)) follow(hidden)
  const inputs = [temp.at('cpt'), '--base', temp.at('base'), '--post', temp.at('instruct')]
  const options = ['-o', temp.at(`${lane}/out`), '--max-shard-size', '1MB', '--threads', '2']
  const child = start(['graft', ...inputs, ...options])
  const { code } = await child.ended
  for (const watcher of watchers) watcher.close()
  return { code, changes }
}

async function digestsOf(lane: string): Promise<Map<string, string>> {
  const files = (await readdir(temp.at(`${lane}/out`))).sort()
  const digestOf = async (file: string) =>
    createHash('sha256')
      .update(await readFile(join(temp.at(`${lane}/out`), file)))
      .digest('hex')
  return new Map(await Promise.all(files.map(async (file) => [file, await digestOf(file)] as const)))
}
