import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { failure } from '../../test/support.js'
import { acquireLock } from './_lock.js'

let root: string
let path: string
const children: ChildProcess[] = []
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'tensor-io-')))
  path = join(root, 'lock')
})
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
  rmSync(root, { recursive: true, force: true })
})

/** A lock of another process. */
function heldBy(pid: number, started: string, host = hostname()): void {
  writeFileSync(path, JSON.stringify({ pid, host, started }))
}

/** Id of a process that is no more. */
async function deadPid(): Promise<number> {
  const child = spawn('true')
  await once(child, 'exit')
  return child.pid!
}

describe('acquireLock', () => {
  it('keeps others away until it is given back, and then leaves nothing', async () => {
    const release = await acquireLock(path)
    const error = await failure(() => acquireLock(path))
    expect(error.code).toBe('busy')
    expect(error.message).toContain(`process ${process.pid} on ${hostname()}`)
    expect(readdirSync(root)).toEqual(['lock'])
    await release()
    expect(readdirSync(root)).toEqual([])
    const next = await acquireLock(path)
    await release() // no longer this one's to give back
    expect((await failure(() => acquireLock(path))).code).toBe('busy')
    await next()
  })

  it('takes the lock of a dead process', async () => {
    heldBy(await deadPid(), 'boot 1')
    await (await acquireLock(path))()
    expect(readdirSync(root)).toEqual([])
  })

  it.each(['', '{', 'null', '[]', '{"pid":"1"}'])('takes a damaged lock: %j', async (text) => {
    writeFileSync(path, text)
    await (await acquireLock(path))()
    expect(readdirSync(root)).toEqual([])
  })

  it('leaves the lock of another machine', async () => {
    heldBy(await deadPid(), 'boot 1', 'elsewhere')
    expect((await failure(() => acquireLock(path))).code).toBe('busy')
    expect(readdirSync(root)).toEqual(['lock'])
  })

  it('takes the lock of a process whose id another one has by now', async (context) => {
    const release = await acquireLock(path)
    const mine = JSON.parse(readFileSync(path, 'utf8'))
    await release()
    if (mine.started === '') return context.skip('this system does not tell when a process started')
    heldBy(process.pid, mine.started)
    expect((await failure(() => acquireLock(path))).code).toBe('busy')
    heldBy(process.pid, `${mine.started}1`)
    await (await acquireLock(path))()
    heldBy(process.pid, mine.started.replace(/^\S+/, 'an-earlier-boot'))
    await (await acquireLock(path))()
    expect(readdirSync(root)).toEqual([])
  })

  it('does not know when the holder started: takes it to be alive', async () => {
    heldBy(process.pid, '')
    expect((await failure(() => acquireLock(path))).code).toBe('busy')
  })

  it('takes the lock of a killed process that nobody has waited for', async (context) => {
    // The child stays a zombie: its parent becomes `sleep`, which waits for nothing.
    const parent = spawn('sh', ['-c', `${process.execPath} -e "" & echo $!; exec sleep 60`])
    children.push(parent)
    const [line] = await once(parent.stdout!, 'data')
    const pid = Number(line)
    const fields = () => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    try {
      for (let i = 0; i < 500 && fields()[0] !== 'Z'; i++) await new Promise((done) => setTimeout(done, 10))
      const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
      heldBy(pid, `${boot} ${fields()[19]}`)
    } catch {
      return context.skip('this system has no /proc')
    }
    await (await acquireLock(path))()
  })

  it('waits while another run removes the dead lock, whoever dies over it', async () => {
    const pid = await deadPid()
    heldBy(pid, 'boot 1')
    const removing = await acquireLock(`${path}.removal`)
    const waiting = acquireLock(path)
    await new Promise((done) => setTimeout(done, 100))
    expect(JSON.parse(readFileSync(path, 'utf8')).pid).toBe(pid)
    await removing()
    await (await waiting)()
    heldBy(pid, 'boot 1')
    writeFileSync(`${path}.removal`, readFileSync(path))
    writeFileSync(`${path}.removal.removal`, readFileSync(path))
    await (await acquireLock(path))()
    expect(readdirSync(root)).toEqual([])
  })

  it('is given to one of many in this process', async () => {
    for (let round = 0; round < 10; round++) {
      heldBy(await deadPid(), 'boot 1')
      const tries = await Promise.allSettled(Array.from({ length: 20 }, () => acquireLock(path)))
      const won = tries.filter((result) => result.status === 'fulfilled')
      expect(won.length).toBe(1)
      for (const lost of tries)
        if (lost.status === 'rejected') expect(lost.reason).toMatchObject({ code: 'busy' })
      await won[0]!.value()
      expect(readdirSync(root)).toEqual([])
    }
  })

  it('of a dead process is given to one of many processes', async () => {
    const source = fileURLToPath(new URL('./_lock.ts', import.meta.url))
    // Each contends as soon as the round's stale lock appears, says how it went and holds what it won for the round.
    const contender = `
      import { existsSync } from 'node:fs'
      import { acquireLock } from ${JSON.stringify(source)}
      process.on('disconnect', () => process.exit())
      let release
      process.on('message', async (round) => {
        if (round === 'end') { await release?.(); release = undefined; return process.send('ended') }
        while (!existsSync(round)) {}
        try { release = await acquireLock(${JSON.stringify(path)}); process.send('won') } catch (error) { process.send(error.code ?? error.stack) }
      })
      process.send('ready')`
    writeFileSync(join(root, 'contender.ts'), contender)
    const contenders = Array.from({ length: 4 }, () => {
      const child = spawn(
        process.execPath,
        ['--import', import.meta.resolve('tsx'), join(root, 'contender.ts')],
        {
          stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        },
      )
      children.push(child)
      return child
    })
    await Promise.all(contenders.map((child) => once(child, 'message')))
    const ask = async (message: string, then = () => {}) => {
      const answers = contenders.map((child) => once(child, 'message'))
      for (const child of contenders) child.send(message)
      await new Promise((done) => setTimeout(done, 5))
      then()
      return (await Promise.all(answers)).map(([answer]) => answer).sort()
    }
    for (let round = 0; round < 30; round++) {
      heldBy(await deadPid(), 'boot 1')
      const go = join(root, `go-${round}`)
      expect(await ask(go, () => writeFileSync(go, ''))).toEqual(['busy', 'busy', 'busy', 'won'])
      await ask('end')
      rmSync(go)
    }
    expect(readdirSync(root)).toEqual(['contender.ts'])
  })
})
