/** Slots of the control words that a team's threads share. */
const PHASE = 0
const ARRIVED = 1
const PROGRAM = 2
const LENGTH = 3
const STOP = 4
const FAILED = 5

/** Bytes of the control words. */
export const CONTROL_BYTES = 64

/** Looks at a word before a thread goes to sleep: waking costs more than what most operations wait. */
const SPINS = 4000

/** How `parts` threads start a program together and keep step. One of them, the leader, gives it out. */
export interface Rendezvous {
  /** Leader: lets the others begin a program of `length` numbers. */
  begin(length: number): void
  /** Others: waits for the next program and gives its length; undefined once the team is dissolved. */
  next(): number | undefined
  /** All: returns when every part has called it. Throws once one has failed. */
  meet(): void
  /** All: lets the others throw where they meet. */
  fail(): void
  dissolve(): void
}

/** @param control CONTROL_BYTES of shared memory, zero at first. */
export function createRendezvous(control: Int32Array, parts: number): Rendezvous {
  let program = 0

  /** Returns when the word is no longer `value`. */
  function change(slot: number, value: number): void {
    for (let i = 0; i < SPINS; i++) if (Atomics.load(control, slot) !== value) return
    while (Atomics.load(control, slot) === value) Atomics.wait(control, slot, value)
  }

  function wake(slot: number): void {
    Atomics.add(control, slot, 1)
    Atomics.notify(control, slot)
  }

  function check(): void {
    if (Atomics.load(control, FAILED) !== 0) throw new Error('another thread failed')
  }

  return {
    begin(length) {
      check()
      Atomics.store(control, LENGTH, length)
      wake(PROGRAM)
    },
    next() {
      change(PROGRAM, program)
      program = Atomics.load(control, PROGRAM)
      return Atomics.load(control, STOP) === 0 ? Atomics.load(control, LENGTH) : undefined
    },
    meet() {
      const phase = Atomics.load(control, PHASE)
      // Who fails after this look wakes those who wait for another phase.
      check()
      if (Atomics.add(control, ARRIVED, 1) === parts - 1) {
        Atomics.store(control, ARRIVED, 0)
        wake(PHASE)
      } else change(PHASE, phase)
      check()
    },
    fail() {
      Atomics.store(control, FAILED, 1)
      wake(PHASE)
    },
    dissolve() {
      Atomics.store(control, STOP, 1)
      wake(PROGRAM)
      Atomics.store(control, FAILED, 1)
      wake(PHASE)
    },
  }
}
