import { byteSize, type Checkpoint, type DType, type Expr, numel, read, type Tensor } from '@polygraft/tensor'
import { layoutShards } from '@polygraft/tensor-io'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkpointOf, sourceOf } from '../test/memory.js'
import { followCompletion } from './_completion.js'
import { planCheckpoint } from './plan.js'
import { planTasks, selectShards } from './tasks.js'

const DTYPES = ['BF16', 'F32', 'F64', 'I8', 'F4'] as const satisfies readonly DType[]

/** Tensors of some shape and dtype, each an expression over three stored ones of its own or of another's. */
const checkpoints = fc
  .array(
    fc.record({
      dtype: fc.constantFrom(...DTYPES),
      elements: fc.oneof(
        fc.constantFrom(0, 1, 2, 1023, 1024, 1025, 9_000_000),
        fc.integer({ min: 0, max: 400_000 }),
      ),
      kind: fc.constantFrom('read', 'graft', 'sub', 'random'),
      /** Whose stored tensors it takes. */
      of: fc.nat(11),
    }),
    { minLength: 1, maxLength: 24 },
  )
  .map(build)

interface Wanted {
  readonly dtype: DType
  readonly elements: number
  readonly kind: string
  readonly of: number
}

function build(wanted: readonly Wanted[]): Checkpoint {
  const owners = wanted.slice(0, 12)
  const stored = owners.flatMap(({ dtype, elements }, i) =>
    ['base', 'post', 'cpt'].map(
      (role) => [`${role}${i}`, { dtype, shape: [even(dtype, elements)] }] as const,
    ),
  )
  const source = sourceOf('s', {})
  const tensors = new Map(
    wanted.map(({ kind, of }, i): [string, Tensor] => {
      const owner = of % owners.length
      const { dtype, elements } = owners[owner]!
      return [`t${i}`, { dtype, shape: [even(dtype, elements)], expr: exprOf(kind, dtype, owner) }]
    }),
  )
  const described = new Map(stored.map(([name, spec]) => [name, { ...spec, file: 'f', begin: 0, end: 0 }]))
  return { ...checkpointOf(source), tensors, sources: new Map([['s', { ...source, tensors: described }]]) }
}

/** Packed dtypes hold whole bytes. */
const even = (dtype: DType, elements: number) => (dtype === 'F4' ? elements + (elements % 2) : elements)

function exprOf(kind: string, dtype: DType, owner: number): Expr {
  const [base, post, cpt] = ['base', 'post', 'cpt'].map((role) => read('s', `${role}${owner}`))
  if (kind === 'read' || dtype === 'I8' || dtype === 'F4') return base!
  if (kind === 'graft') return { op: 'graft', cpt: cpt!, base: base!, post: post!, lambda: 1 }
  if (kind === 'sub') return { op: 'sub', args: [post!, base!] }
  return { op: 'random', distribution: 'normal', scale: 1, seed: 0, name: `r${owner}` }
}

const budgets = fc.constantFrom(128 * 2 ** 10, 300_000, 2 ** 20, 2 * 2 ** 20)
const shardSizes = fc.constantFrom(1, 1000, 1_000_000, 1e9)

/** Every stretch of every tensor that the tasks write. Unit: elements. */
function stretchesOf({ groups, tasks }: ReturnType<typeof planTasks>) {
  return tasks.flatMap(({ group, begin, count }) =>
    groups[group]!.names.map((name) => ({ name, begin, end: begin + count })),
  )
}

describe('planTasks', () => {
  it('has every element of every tensor in exactly one task', () => {
    fc.assert(
      fc.property(checkpoints, shardSizes, budgets, (checkpoint, shardBytes, tileBytes) => {
        const work = planTasks(checkpoint, layoutShards(checkpoint.tensors, shardBytes), tileBytes)
        const stretches = stretchesOf(work).toSorted((a, b) => a.begin - b.begin)
        for (const [name, { shape }] of checkpoint.tensors) {
          let reached = 0
          for (const { begin, end } of stretches.filter((stretch) => stretch.name === name)) {
            expect(begin).toBe(reached)
            expect(end).toBeGreaterThan(begin)
            reached = end
          }
          expect(reached).toBe(numel(shape))
        }
      }),
      { numRuns: 60 },
    )
  })

  it('groups within a shard what has one size and dtype; tiles begin on whole bytes and fit the budget', () => {
    fc.assert(
      fc.property(checkpoints, shardSizes, budgets, (checkpoint, shardBytes, tileBytes) => {
        const shards = layoutShards(checkpoint.tensors, shardBytes)
        const { groups, tasks } = planTasks(checkpoint, shards, tileBytes)
        expect(groups.flatMap(({ names }) => names).toSorted()).toEqual(
          [...checkpoint.tensors.keys()].toSorted(),
        )
        for (const { shard, names, tileElements } of groups) {
          const members = names.map((name) => checkpoint.tensors.get(name)!)
          expect(names.every((name) => shards[shard]!.tensors.has(name))).toBe(true)
          expect(new Set(members.map(({ dtype, shape }) => `${dtype} ${shape}`)).size).toBe(1)
          expect(names.length).toBeLessThanOrEqual(16)
          expect(tileElements % 1024).toBe(0)
          const outputs = members.reduce((sum, { dtype }) => sum + byteSize(dtype, tileElements), 0)
          expect(tileElements === 1024 || outputs <= tileBytes).toBe(true)
        }
        for (const { group, begin } of tasks) expect(begin % groups[group]!.tileElements).toBe(0)
      }),
      { numRuns: 60 },
    )
  })

  it('is parted by shards without loss', () => {
    fc.assert(
      fc.property(checkpoints, fc.integer({ min: 1, max: 4 }), (checkpoint, tasks) => {
        const plan = planCheckpoint(checkpoint, { maxShardBytes: 100_000 })
        const parts = Array.from({ length: tasks }, (_, task) =>
          selectShards(plan, new Set([...plan.shards.keys()].filter((shard) => shard % tasks === task))),
        )
        const key = (part: unknown) => JSON.stringify(part)
        expect(
          parts
            .flatMap((part) => stretchesOf(part.work))
            .map(key)
            .toSorted(),
        ).toEqual(stretchesOf(plan.work).map(key).toSorted())
        expect(parts.flatMap(({ shards }) => shards.map(({ file }) => file)).toSorted()).toEqual(
          plan.shards.map(({ file }) => file),
        )
      }),
      { numRuns: 40 },
    )
  })
})

describe('followCompletion', () => {
  it('reaches the end of each file exactly when all before it is written, in whatever order tasks end', () => {
    fc.assert(
      fc.property(
        checkpoints,
        shardSizes,
        fc.infiniteStream(fc.nat(1_000_000)),
        (checkpoint, shardBytes, random) => {
          const shards = layoutShards(checkpoint.tensors, shardBytes)
          const work = planTasks(checkpoint, shards, 128 * 2 ** 10)
          const completion = followCompletion(shards, work, checkpoint.tensors)
          const reached = shards.map(({ header }) => header.length)
          const written = shards.map(() => new Map<number, number>())
          const order = [...work.tasks.keys()]
            .map((index) => ({ index, at: random.next().value as number }))
            .toSorted((a, b) => a.at - b.at)
          let bytes = 0
          for (const { index } of order) {
            const { group, begin, count } = work.tasks[index]!
            const { shard, names } = work.groups[group]!
            for (const name of names) {
              const { dtype } = checkpoint.tensors.get(name)!
              const start = shards[shard]!.tensors.get(name)!.begin
              written[shard]!.set(start + byteSize(dtype, begin), start + byteSize(dtype, begin + count))
            }
            for (const grown of completion.done(index)) {
              expect(grown.until).toBeGreaterThan(reached[grown.shard]!)
              reached[grown.shard] = grown.until
            }
            // The same, from the beginning.
            for (const [i, { header }] of shards.entries()) {
              let end = header.length
              while (written[i]!.has(end)) end = written[i]!.get(end)!
              expect(reached[i]).toBe(end)
            }
            bytes += completion.bytesOf(index)
          }
          expect(reached).toEqual(shards.map(({ size }) => size))
          expect(bytes).toBe(shards.reduce((sum, { size, header }) => sum + size - header.length, 0))
        },
      ),
      { numRuns: 60 },
    )
  })
})
