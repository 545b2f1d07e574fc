import { attend, copyCache, rotateAndStore } from './_attention.js'
import { addGated, addScaled, embed, gated, gather, linear, norm, scale } from './_decoder-operations.js'
import { createMachine, SCRATCH_BYTES } from './_machine.js'
import { combine, gate, group, linearOfExperts } from './_mixture.js'
import type { Operation } from './_operation.js'
import {
  adamW,
  addBias,
  addColumns,
  attendDocuments,
  attendDocumentsBackward,
  clear,
  combineRows,
  copy,
  gatherRows,
  normBackward,
  normWeightGradient,
  product,
  rotate,
  scatterRows,
  silu,
  siluBackward,
  spreadRows,
  squares,
  trainingNorm,
  weightedSoftmax,
} from './_training-operations.js'
import type { KernelMemory } from './_wasm-run.js'

/** Every operation of a program, by name. A program holds their indices, so that all threads must run one version. */
const OPERATIONS = {
  adamW,
  addBias,
  addColumns,
  addGated,
  addScaled,
  attend,
  attendDocuments,
  attendDocumentsBackward,
  clear,
  combine,
  combineRows,
  copy,
  copyCache,
  embed,
  gate,
  gated,
  gather,
  gatherRows,
  group,
  linear,
  linearOfExperts,
  norm,
  normBackward,
  normWeightGradient,
  product,
  rotate,
  rotateAndStore,
  scale,
  scatterRows,
  silu,
  siluBackward,
  spreadRows,
  squares,
  trainingNorm,
  weightedSoftmax,
} as const

type Operations = typeof OPERATIONS
export type OperationName = keyof Operations

/** The operands of an instruction by name: addresses in bytes, sizes, numbers. */
export type Operands<Name extends OperationName> = Readonly<
  Record<Operations[Name]['fields'][number], number>
>

const NAMES = Object.keys(OPERATIONS) as OperationName[]

/** An instruction as numbers: which operation, and its operands in the order of its fields. */
export function encodeInstruction<Name extends OperationName>(
  name: Name,
  operands: Operands<Name>,
): number[] {
  const fields: readonly string[] = OPERATIONS[name].fields
  return [
    NAMES.indexOf(name),
    ...fields.map((field) => (operands as Readonly<Record<string, number>>)[field]!),
  ]
}

/** Runs programs over one memory; each thread has its own. */
export interface Processor {
  /**
   * This thread's part of `program`, instruction by instruction; `wait` is called after each, and returns when all parts have come
   * so far.
   */
  run(program: Float64Array, part: number, parts: number, wait: () => void): void
}

/** Working space of one processor. Unit: bytes. */
export const PROCESSOR_SCRATCH_BYTES = SCRATCH_BYTES

/** @param scratch Address of PROCESSOR_SCRATCH_BYTES, a multiple of 16. */
export function createProcessor(memory: KernelMemory, scratch: number): Processor {
  const machine = createMachine(memory, scratch)
  return {
    run(program, part, parts, wait) {
      for (let at = 0; at < program.length; ) {
        const { fields, run }: Operation = OPERATIONS[NAMES[program[at]!]!]
        const operands: Record<string, number> = {}
        for (const [i, field] of fields.entries()) operands[field] = program[at + 1 + i]!
        run(machine, operands, part, parts)
        at += 1 + fields.length
        wait()
      }
    },
  }
}
