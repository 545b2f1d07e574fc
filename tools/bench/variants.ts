import { rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Case, Peer, Places, Role } from './cases.js'
import type { Command } from './measure.js'
import { mergekit } from './mergekit.js'

const NO_SYNC = fileURLToPath(new URL('no-sync.cjs', import.meta.url))

/** One way of doing a case: a row of the report. Equal keys are one measurement, shared by cases. */
export interface Variant {
  readonly key: string
  readonly label: string
  /** Bytes that it reads and writes, given the size of the case's output. */
  bytes(outputBytes: number): number
  command(): Command
}

/** The ways of one case, by what they are to the others. */
export interface Variants {
  readonly ours: Variant
  readonly oursUnsynced?: Variant
  readonly peer: Variant
  readonly peerSynced?: Variant
  readonly mergekit?: Variant
}

/** @param kept where an output of the case will lie, if its peer copies that. */
export function variantsOf(
  { id, reads, writes, peer, ours, mergekit: config }: Case,
  places: Places,
  kept: string,
  withMergekit: boolean,
): Variants {
  const fileOf = (role: Role) => join(role === 'output' ? kept : join(places.data, role), 'model.safetensors')
  const sizeOf = (roles: readonly Role[]) => roles.reduce((sum, role) => sum + statSync(fileOf(role)).size, 0)
  const needed = (outputBytes: number) => sizeOf(reads) + outputBytes
  const plain = ours(places)
  const unsynced = { ...plain, argv: [plain.argv[0]!, '--require', NO_SYNC, ...plain.argv.slice(1)] }
  const peerOf = (sync: boolean): Variant => ({
    key: [...peer.read, 'to', ...peer.copied, sync, peer.copied.includes('output') ? id : ''].join(' '),
    label: peerLabel(peer, sync),
    bytes: () => sizeOf(peer.read) + 2 * sizeOf(peer.copied),
    command: () => peerCommand(peer, fileOf, places.out, sync),
  })
  const own = (label: string, command: () => Command): Variant => ({
    key: `${id} ${label}`,
    label,
    bytes: needed,
    command,
  })
  return {
    ours: own('polygraft', () => plain),
    ...(writes ? { peerSynced: peerOf(true), oursUnsynced: own('polygraft, no sync', () => unsynced) } : {}),
    peer: peerOf(false),
    ...(withMergekit && config
      ? {
          mergekit: own('mergekit', () => mergekit(config(places), places.out, places.threads, places.data)),
        }
      : {}),
  }
}

/** Removes what a run wrote. */
export function removeOutput({ out }: Places): void {
  rmSync(out, { recursive: true, force: true })
}

function peerLabel({ copied }: Peer, sync: boolean): string {
  return `${copied.length > 0 ? 'cp' : 'cat'}${sync ? ' and sync' : ''}`
}

function peerCommand(
  { read, copied }: Peer,
  fileOf: (role: Role) => string,
  out: string,
  sync: boolean,
): Command {
  const quoted = (path: string) => `'${path.replaceAll("'", "'\\''")}'`
  const copies = copied.map((role) => [quoted(fileOf(role)), quoted(join(out, role))] as const)
  const steps = [
    ...(read.length > 0 ? [`cat ${read.map((role) => quoted(fileOf(role))).join(' ')} > /dev/null`] : []),
    ...(copied.length > 0 ? [`mkdir ${quoted(out)}`] : []),
    ...copies.map(([from, to]) => `cp ${from} ${to}`),
    ...(sync ? [`sync ${copies.map(([, to]) => to).join(' ')}`] : []),
  ]
  return { argv: ['sh', '-c', steps.join(' && ')] }
}
