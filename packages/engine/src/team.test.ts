import { createTeam } from '@polygraft/engine'
import { createKernelMemory, encodeInstruction, growKernelMemory } from '@polygraft/kernels'
import { describe, expect, it } from 'vitest'
import { CONTROL_BYTES, createRendezvous } from './_rendezvous.js'
import { startThread } from './node/start-thread.js'
import type { TeamInput } from './node/team-thread.js'
import { readyThread } from './node/team-watch.js'

const COUNT = 1000

describe('createTeam', () => {
  it.each([1, 2, 3])(
    'runs programs of any length with %i threads, each instruction after the last',
    async (threads) => {
      const team = await createTeam(threads)
      growKernelMemory(team.memory, team.begin + COUNT * 4)
      const x = () => new Float32Array(team.memory.buffer, team.begin, COUNT)
      x().fill(1)
      const twice = encodeInstruction('addScaled', {
        x: team.begin,
        out: team.begin,
        count: COUNT,
        factor: 1,
      })
      const half = encodeInstruction('scale', { x: team.begin, count: COUNT, factor: 0.5 })
      team.run(Array.from({ length: 20_000 }, (_, i) => (i % 2 === 0 ? twice : half)))
      team.run([])
      team.run([twice])
      expect(new Set(x())).toEqual(new Set([2]))
      await team.close()
    },
  )

  it('says that a thread failed, and is of no use then', async () => {
    const team = await createTeam(2)
    // The first half lies within the memory, the second, which is the other thread's, reaches beyond it.
    const bytes = team.memory.buffer.byteLength
    const count = Math.floor((bytes / 4) * 1.5) & ~3
    const beyond = encodeInstruction('gated', { activation: 0, x: team.begin, y: team.begin, count })
    expect(() => team.run([beyond])).toThrow(expect.objectContaining({ code: 'thread' }))
    expect(() => team.run([beyond])).toThrow(expect.objectContaining({ code: 'thread' }))
    await team.close()
  })
})

it('who waits hears at once that a thread has ended', async () => {
  const memory = createKernelMemory(2 ** 24, true)
  const [own, other] = [0, CONTROL_BYTES].map((control) =>
    createRendezvous(new Int32Array(memory.buffer, control, CONTROL_BYTES / 4), 3),
  )
  const input = (part: number): TeamInput => ({
    ...{ role: 'team', memory, part, parts: 3 },
    ...{ control: (part - 1) * CONTROL_BYTES, program: 1024, scratch: part * 2 ** 22 },
  })
  const watcher = startThread({ role: 'team-watch', threads: [input(1), input(2)] })
  await readyThread(watcher)
  // The second ends by words of its own. This thread sleeps, and nothing but the watching one can wake it.
  other!.dissolve()
  expect(() => own!.meet()).toThrow('another thread failed')
  await watcher.terminate()
})
