import { type Checkpoint, DTYPE_BITS, type Tensor } from '@polygraft/tensor'
import type { TensorDelta } from './_dense-delta.js'
import { joined, type PieceDelta } from './_piece-deltas.js'
import type { Step } from './_plan.js'
import { readTile, type Tile } from './_tiles.js'
import type { GraftOptions } from './options.js'
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
  add(step: Step, pieces: readonly PieceDelta[], want: Tensor, tile: Tile, found: Uint8Array): Promise<void>
  check(): Check
}

/** A tally for tensors of lambda 1 whose rows were not moved and which have one dtype throughout; others are left out. */
export function createFrozenTally(
  deltas: ReadonlyMap<string, TensorDelta>,
  settings: GraftOptions,
  sources: Checkpoint['sources'],
): FrozenTally {
  const counts = new Map<string, Count>()

  return {
    async add(step, pieces, want, tile, found) {
      const { cpt } = step
      const dtypes = step.pieces.flatMap(({ dense }) => deltas.get(dense)?.dtypes ?? [])
      const isAlike = cpt.dtype === want.dtype && `${cpt.shape}` === `${want.shape}`
      const isWhole = pieces.length > 0 && pieces.every(({ lambda }) => lambda === 1)
      if (!isAlike || !isWhole || dtypes.some((each) => each !== want.dtype) || 'delta' in settings) return
      const { base, post, frozen } = joined(pieces)
      const stored = [cpt.expr, frozen ?? base!, post].map((expr) =>
        readTile({ ...want, expr }, sources, tile),
      )
      const [c, b, i] = (await Promise.all(stored)) as [Uint8Array, Uint8Array, Uint8Array]
      const count = counts.get(step.name) ?? {
        isExpert0: step.pieces.every(({ copy }) => copy === 0),
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
