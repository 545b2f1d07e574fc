import { createHash } from 'node:crypto'
import { existsSync, type FSWatcher, watch } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, expect, it } from 'vitest'
import { createTemp, start, writeModel } from './support.js'

const KILLS = 100
/**
 * Runs side by side, each into an output of its own: of many small shards, and of one that is larger than what the journal tells of at
 * a time.
 */
const LANES = [
  { name: 'small shards', shard: '1MB', kept: 'notes' },
  { name: 'one shard', shard: '1GB', kept: 'journal' },
]
const INPUTS = ['base', 'cpt', 'instruct']
const CONFIG = { vocab_size: 512, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 8 }

let temp: Awaited<ReturnType<typeof createTemp>>

beforeAll(async () => {
  temp = await createTemp()
  for (const [seed, name] of INPUTS.entries()) await writeModel(temp.at(name), { seed, config: CONFIG })
})

it.each(LANES)(
  `ends in the same bytes after ${KILLS / LANES.length} kills at random points: $name`,
  async ({ shard, kept }) => {
    const lane = (name: string) => `${shard}-${name}`
    await mkdir(temp.at(lane('expected')))
    // How often an undisturbed run changes a name beside its output: kills are set by that, whatever else the machine does.
    const { code, changes: usualChanges } = await graft(lane('expected'), shard)
    expect(code).toBe(0)
    const expected = await digestsOf(lane('expected'))
    let published = 0
    let resumed = 0
    const killed = lane('killed')
    await mkdir(temp.at(killed))
    for (let kill = 0; kill < KILLS / LANES.length; kill++) {
      const { code } = await graft(killed, shard, Math.random() * usualChanges)
      const left = await readdir(temp.at(`${killed}/.out.polygraft/${kept}`)).catch(() => [])
      if (left.length > 0) resumed++
      // Readers see the whole checkpoint or none.
      if (code !== 0 && !existsSync(temp.at(`${killed}/out`))) continue
      expect(await digestsOf(killed)).toEqual(expected)
      await rm(temp.at(`${killed}/out`), { recursive: true })
      published++
    }
    expect((await graft(killed, shard)).code).toBe(0)
    expect(await digestsOf(killed)).toEqual(expected)
    expect(await readdir(temp.at(killed))).toEqual(['out'])
    // Otherwise the kills fell before or after the work, and the test shows nothing.
    expect(resumed).toBeGreaterThan(KILLS / LANES.length / 10)
    expect(published).toBeLessThan(KILLS / LANES.length / 2)
  },
  300_000,
)

/**
 * Runs the graft into `out` of the folder `lane`; with `killAt`, kills it soon after it has changed that many names there
 * and in its hidden folder, lines of the journal counted.
 */
async function graft(
  lane: string,
  shard: string,
  killAt = Number.POSITIVE_INFINITY,
): Promise<{ code: number | null; changes: number }> {
  const hidden = temp.at(`${lane}/.out.polygraft`)
  const watchers = new Map<string, FSWatcher>()
  let changes = 0
  const changed = () => {
    // Between two changes, too.
    if (++changes > killAt) setTimeout(() => child.kill('SIGKILL'), Math.random() * 5)
    followAll()
  }
  const followAll = () => {
    for (const folder of [temp.at(lane), hidden, join(hidden, 'journal')])
      if (!watchers.has(folder) && existsSync(folder))
        watchers.set(
          folder,
          watch(folder)
            .on('change', changed)
            .on('error', () => {}),
        )
  }
  followAll()
  const inputs = [temp.at('cpt'), '--base', temp.at('base'), '--post', temp.at('instruct')]
  const options = ['-o', temp.at(`${lane}/out`), '--max-shard-size', shard, '--threads', '2']
  const child = start(['graft', ...inputs, ...options])
  const { code } = await child.ended
  for (const watcher of watchers.values()) watcher.close()
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
