import { effectiveTensors } from '@polygraft/delta'
import { type Checkpoint, DTYPE_BITS, type Tensor } from '@polygraft/tensor'
import type { Step } from './_plan.js'
import { readTile, type Tile } from './_tiles.js'
import type { GraftOptions, PairSource } from './options.js'
import { type Check, checkOf } from './verify-report.js'

interface Count {
  readonly isExpert0: boolean
  elements: number
  /** Elements where cpt equals base bit for bit. */
  frozen: number
  /** Those of them where the output is not post. */
  wrong: number
}

/** Counts, tile by tile, where cpt is still base and whether the output is post there. */
export interface FrozenTally {
  add(step: Step, want: Tensor, tile: Tile, found: Uint8Array): Promise<void>
  check(): Check
}

/** A tally for tensors of lambda 1 whose rows were not moved and which have one dtype throughout; others are left out. */
export function createFrozenTally(
  { base, post }: PairSource,
  settings: GraftOptions,
  sources: Checkpoint['sources'],
): FrozenTally {
  const [before, after] = [effectiveTensors(base, true), effectiveTensors(post, true)]
  const counts = new Map<string, Count>()

  return {
    async add(step, want, tile, found) {
      const pair = [before.get(step.dense ?? ''), after.get(step.dense ?? '')]
      const comparable = [step.cpt, ...pair].every((each) => each && isAlike(each, want))
      if (!comparable || step.lambda !== 1 || 'delta' in settings) return
      const bytes = [step.cpt, pair[0]!, pair[1]!].map((tensor) => readTile(tensor, sources, tile))
      const [c, b, i] = (await Promise.all(bytes)) as [Uint8Array, Uint8Array, Uint8Array]
      const count = counts.get(step.name) ?? {
        isExpert0: step.role.expert === 0,
        elements: 0,
        frozen: 0,
        wrong: 0,
      }
      counts.set(step.name, count)
      count.elements += tile.end - tile.begin
      countFrozen(count, DTYPE_BITS[want.dtype] / 8, [c, b, i, found])
    },
    check: () => ('delta' in settings ? NOT_CLAIMED : frozenCheck(counts)),
  }
}

const NOT_CLAIMED: Check = {
  name: 'frozen',
  ok: true,
  detail: 'not claimed: a stored delta does not know where cpt equals its base',
}

function isAlike(a: Tensor, b: Tensor): boolean {
  return a.dtype === b.dtype && `${a.shape}` === `${b.shape}`
}

/** Elements of `width` bytes each. */
function countFrozen(
  count: Count,
  width: number,
  tiles: readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array],
) {
  const [cpt, base, post, found] = tiles.map((bytes) => wordsOf(bytes, width)) as [Words, Words, Words, Words]
  const [zero, minusZero] = ZEROS[width]!
  // Zeros of either sign are equal to the arithmetic, which then passes on cpt's.
  const isZero = (word: number | bigint) => word === zero || word === minusZero
  for (let at = 0; at < cpt.length; at++) {
    if (cpt[at] !== base[at]) continue
    count.frozen++
    if (found[at] !== post[at] && !(isZero(found[at]!) && isZero(post[at]!))) count.wrong++
  }
}

type Words = ArrayLike<number> | ArrayLike<bigint>

/** The bits of 0 and -0 by the bytes of an element. */
const ZEROS: Readonly<Record<number, readonly [number | bigint, number | bigint]>> = {
  2: [0, 0x8000],
  4: [0, 0x80000000],
  8: [0n, 0x8000000000000000n],
}

/** The elements of a tile as whole numbers; tiles begin with their buffer. */
function wordsOf({ buffer, byteLength }: Uint8Array, width: number): Words {
  if (width === 2) return new Uint16Array(buffer, 0, byteLength / 2)
  if (width === 4) return new Uint32Array(buffer, 0, byteLength / 4)
  return new BigUint64Array(buffer, 0, byteLength / 8)
}

function frozenCheck(counts: ReadonlyMap<string, Count>): Check {
  const all = [...counts.values()]
  const expert0 = all.filter(({ isExpert0 }) => isExpert0)
  const wholly = (some: readonly Count[]) => some.filter(({ elements, frozen }) => elements === frozen).length
  const sum = (field: 'elements' | 'frozen') => all.reduce((total, count) => total + count[field], 0)
  const wrong = [...counts].filter(([, count]) => count.wrong > 0)
  const detail =
    `${sum('frozen')} of ${sum('elements')} elements are in cpt as in base, and now as in post: ` +
    `${wholly(all)} of ${all.length} tensors wholly` +
    (expert0.length > 0 ? `, of expert 0 ${wholly(expert0)} of ${expert0.length}` : '')
  return checkOf(
    'frozen',
    wrong.map(([name, count]) => `${name}: ${count.wrong} of ${count.frozen}`),
    detail,
  )
}
