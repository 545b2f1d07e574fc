import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from './measure.js'

export type Role = 'base' | 'instruct' | 'cpt' | 'output'

/**
 * What the same bytes cost without arithmetic: `read` is read to /dev/null (cat), `copied` is copied to the output's disk
 * (cp), one after the other. `output` is an output of the case itself, made beforehand.
 */
export interface Peer {
  readonly read: readonly Role[]
  readonly copied: readonly Role[]
}

export interface Case {
  readonly id: string
  /** Experts of `cpt`: cases of equal number share their data. */
  readonly experts: number
  /** For the reader of the report. */
  readonly does: string
  /** The command of polygraft that it takes, if it is one of the command line. */
  readonly needs?: string
  /** What has to be read, as often as it must be, and whether there is an output. */
  readonly reads: readonly Role[]
  readonly writes: boolean
  readonly peer: Peer
  ours(places: Places): Command
  /** mergekit's configuration of the same method, with paths filled in. */
  mergekit?(places: Places): object
}

export interface Places {
  /** Folder of the three inputs. */
  readonly data: string
  /** The folder that is written. */
  readonly out: string
  /** Where merge.ts was bundled to. */
  readonly merge: string
  readonly threads: number
}

const CLI = fileURLToPath(new URL('../../apps/cli/bin/polygraft.js', import.meta.url))
const TRIPLE = { reads: ['base', 'instruct', 'cpt'], writes: true } as const
const READ_THREE_WRITE_ONE: Peer = { read: ['base', 'instruct'], copied: ['cpt'] }
// Trimming is by rank, so that every task vector is read once before anything can be written. Ours does the same.
const READ_TWICE = {
  reads: ['base', 'instruct', 'cpt', 'base', 'instruct', 'cpt'],
  peer: { read: ['base', 'instruct', 'cpt', 'base', 'instruct'], copied: ['cpt'] },
} as const

/** `polygraft ...`, built. */
export function polygraft(...args: readonly string[]): Command {
  return { argv: [process.execPath, CLI, ...args] }
}

const writing = ({ out, threads }: Places) => ['-o', out, '--threads', `${threads}`, '--json']
const input = ({ data }: Places, role: Role) => join(data, role)

export const CASES: readonly Case[] = [
  ...[1, 4, 8].map((experts) => graftCase(experts)),
  mergeCase('linear', 'weighted sum of base, instruct and cpt, through the packages', (models) => ({
    merge_method: 'linear',
    models: ['base', 'instruct', 'cpt'].map((role, i) => models(role, { weight: [0.5, 0.3, 0.2][i]! })),
  })),
  mergeCase(
    'task_arithmetic',
    'base + (instruct - base) + 0.5 * (cpt - base), through the packages',
    (models) => ({
      merge_method: 'task_arithmetic',
      base_model: models('base').model,
      models: [models('instruct', { weight: 1 }), models('cpt', { weight: 0.5 })],
    }),
  ),
  {
    ...mergeCase(
      'ties',
      'TIES of instruct and cpt over base, density 0.2 of each tensor, through the packages: thresholds are measured, then the inputs are read again',
      (models) => signElection('ties', 0.2, models),
    ),
    ...READ_TWICE,
  },
  mergeCase(
    'dare_ties',
    'DARE of instruct and cpt over base, density 0.5, and the sign election of TIES, through the packages',
    (models) => signElection('dare_ties', 0.5, models),
  ),
  {
    id: 'upcycle, E = 4',
    experts: 1,
    does: 'polygraft upcycle of base: each FFN becomes 4 copies. The peer copies such an output, so it reads more than the task needs',
    needs: 'upcycle',
    reads: ['base'],
    writes: true,
    peer: { read: [], copied: ['output'] },
    ours: (places) => polygraft('upcycle', input(places, 'base'), '--experts', '4', ...writing(places)),
  },
  {
    id: 'delta',
    experts: 1,
    does: 'polygraft delta: instruct - base in F32',
    needs: 'delta',
    reads: ['base', 'instruct'],
    writes: true,
    peer: { read: [], copied: ['base', 'instruct'] },
    ours: (places) =>
      polygraft('delta', input(places, 'base'), input(places, 'instruct'), ...writing(places)),
  },
  {
    id: 'diff',
    experts: 1,
    does: 'polygraft diff: norms, cosine and extrema of instruct - base, in F64',
    needs: 'diff',
    reads: ['base', 'instruct'],
    writes: false,
    peer: { read: ['base', 'instruct'], copied: [] },
    ours: (places) => polygraft('diff', input(places, 'base'), input(places, 'instruct'), '--json'),
  },
]

function graftCase(experts: number): Case {
  return {
    ...TRIPLE,
    id: `graft, E = ${experts}`,
    experts,
    does:
      experts === 1
        ? 'polygraft graft onto a dense model: cpt + (instruct - base)'
        : `polygraft graft onto a mixture of ${experts} experts (Mixtral's layout): the delta is computed once and added to each`,
    needs: 'graft',
    peer: READ_THREE_WRITE_ONE,
    ours: (places) =>
      polygraft(
        ...['graft', input(places, 'cpt'), '--base', input(places, 'base')],
        ...['--post', input(places, 'instruct'), ...writing(places)],
      ),
  }
}

type Models = (role: string, parameters?: object) => { model: string; parameters: object }

/** mergekit's; its mean is ours where all weights are 1. */
function signElection(method: string, density: number, models: Models): object {
  return {
    merge_method: method,
    base_model: models('base').model,
    models: ['instruct', 'cpt'].map((role) => models(role, { weight: 1, density })),
    parameters: { normalize: true },
  }
}

function mergeCase(method: string, does: string, configOf: (models: Models) => object): Case {
  return {
    ...TRIPLE,
    id: method,
    experts: 1,
    does,
    peer: READ_THREE_WRITE_ONE,
    ours: ({ data, out, merge, threads }) => {
      const inputs = ['base', 'instruct', 'cpt'].map((role) => join(data, role))
      return { argv: [process.execPath, merge, method, ...inputs, out, `${threads}`] }
    },
    mergekit: ({ data }) => ({
      ...configOf((role, parameters = {}) => ({ model: join(data, role), parameters })),
      dtype: 'bfloat16',
    }),
  }
}
