import { randomBytes } from 'node:crypto'
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join } from 'node:path'
import { ModelError } from '@polygraft/tensor'
import { systemCode } from './_fs-error.js'

interface Holder {
  readonly pid: number
  readonly host: string
  /** When the process started, in the kernel's own units: ids are used again. Empty where that is not known. */
  readonly started: string
}

/**
 * Takes the lock file `path`, or that of a process of this machine that is no more.
 * @returns Gives it back.
 * @throws ModelError 'busy' while another process holds it.
 */
export async function acquireLock(path: string): Promise<() => Promise<void>> {
  const mine = JSON.stringify(await describe(process.pid))
  const draft = join(dirname(path), `.lock-${process.pid}-${randomBytes(4).toString('hex')}`)
  await writeFile(draft, mine)
  try {
    for (let attempt = 0; ; attempt++) {
      if (await claim(draft, path)) return async () => rm(path, { force: true })
      const holder = await readHolder(path)
      if (holder && ((await isAlive(holder)) || attempt > 3)) throw busy(path, holder)
      // Of two runs that find the same dead one, only one can move its lock away.
      if (holder) await rename(path, `${draft}-dead`).catch(ignoreMissing)
      await rm(`${draft}-dead`, { force: true })
    }
  } finally {
    await rm(draft, { force: true })
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

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as Holder
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined
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
  return (await describe(holder.pid)).started === holder.started
}

async function describe(pid: number): Promise<Holder> {
  // Field 22 of the line, counted behind the name in brackets, which may hold blanks.
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  const started = line.slice(line.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  return { pid, host: hostname(), started }
}

function ignoreMissing(error: unknown): void {
  if (systemCode(error) !== 'ENOENT') throw error
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
