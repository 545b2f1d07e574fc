import { randomBytes } from 'node:crypto'
import { link, readFile, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import { ModelError } from '@polygraft/tensor'
import { systemCode } from './_fs-error.js'

interface Holder {
  readonly pid: number
  readonly host: string
  /** Boot of the machine and the kernel's time of the process's start: ids are used again. Empty where not known. */
  readonly started: string
}

const WAIT_MS = 20
const MAX_WAITS = 100

/**
 * Takes the lock file `path`, or that of a process of this machine that is no more. All names that it uses begin with
 * `path`.
 * @returns Gives it back.
 * @throws ModelError 'busy' while another process holds it.
 */
export async function acquireLock(path: string): Promise<() => Promise<void>> {
  const draft = `${path}.${process.pid}-${randomBytes(4).toString('hex')}`
  try {
    await writeFile(draft, JSON.stringify(await describe(process.pid)))
    for (;;) {
      if (await claim(draft, path)) return releaseOf(path)
      const found = await readHolder(path)
      if (!found) continue
      if (found !== 'damaged' && (await isAlive(found))) throw busy(path, found)
      await removeDead(path)
    }
  } finally {
    await rm(draft, { force: true })
  }
}

/** Gives the lock back once: after that it may be another run's. */
function releaseOf(path: string): () => Promise<void> {
  let isHeld = true
  return async () => {
    if (isHeld) await rm(path, { force: true })
    isHeld = false
  }
}

/** A link is made whole or not at all, and never over an existing name. */
async function claim(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path)
    return true
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false
    throw error
  }
}

/**
 * Removes the lock of a process that is no more. Whoever does so holds a lock for it and looks again: between the look and
 * the removal, another run could have removed the dead lock and taken it, and would lose it.
 */
async function removeDead(path: string): Promise<void> {
  for (let waits = 0; await isDead(path); waits++) {
    const release = await acquireLock(`${path}.removal`).catch((error: unknown) => {
      if (systemCode(error) !== 'busy' || waits === MAX_WAITS) throw error
    })
    if (!release) await setTimeout(WAIT_MS)
    else if (await isDead(path)) await rm(path, { force: true }).finally(release)
    else await release()
  }
}

async function isDead(path: string): Promise<boolean> {
  const found = await readHolder(path)
  return found !== undefined && (found === 'damaged' || !(await isAlive(found)))
}

/** Locks are made whole, so that a damaged one was being made when the machine stopped. */
async function readHolder(path: string): Promise<Holder | 'damaged' | undefined> {
  try {
    const { pid, host, started } = JSON.parse(await readFile(path, 'utf8')) as Partial<Holder>
    if (!Number.isInteger(pid) || host === undefined || started === undefined) return 'damaged'
    return { pid: pid!, host, started }
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
    if (error instanceof SyntaxError || error instanceof TypeError) return 'damaged'
    throw error
  }
}

async function isAlive(holder: Holder): Promise<boolean> {
  if (holder.host !== hostname()) return true // not to be known from here
  try {
    process.kill(holder.pid, 0)
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return false
  }
  const { started } = await describe(holder.pid)
  // Where one of them is not known, a process of that id is taken to be the holder.
  return started === '' || holder.started === '' || started === holder.started
}

async function describe(pid: number): Promise<Holder> {
  const read = (path: string) => readFile(path, 'utf8').catch(() => '')
  const line = await read(`/proc/${pid}/stat`)
  // Counted behind the name in brackets, which may hold blanks: the state, and 19 fields on the time of the start.
  const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
  const [state, ticks] = [fields[0], fields[19]]
  if (ticks === undefined) return { pid, host: hostname(), started: '' }
  // What has ended but was not waited for keeps its id and writes nothing any more.
  const boot =
    state === 'Z' || state === 'X' ? 'ended' : (await read('/proc/sys/kernel/random/boot_id')).trim()
  return { pid, host: hostname(), started: `${boot} ${ticks}` }
}

function busy(path: string, { pid, host }: Holder): ModelError {
  return new ModelError({
    code: 'busy',
    message: 'Another run is writing this output',
    file: path,
    received: `process ${pid} on ${host}`,
    next: 'Wait for it to end. If it is gone, because its machine is, remove this file.',
  })
}
