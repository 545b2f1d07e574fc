import { type Code, MEMORY_LIMITS, moduleOf } from './_wasm.js'

/** The little of the WebAssembly interface that is needed; type libraries have it only together with the DOM. */
declare const WebAssembly: {
  validate(bytes: Uint8Array<ArrayBuffer>): boolean
  Module: new (bytes: Uint8Array<ArrayBuffer>) => object
  Instance: new (module: object, imports: object) => { exports: { run: (...args: number[]) => void } }
  Memory: new (pages: { initial: number; maximum: number; shared?: boolean }) => GrowingMemory
}

/** A memory of fixed size: its buffer never moves. */
export interface Memory {
  readonly buffer: ArrayBuffer
}

/** A memory that can grow; a WebAssembly.Memory, which threads can be given where it is shared. */
export interface KernelMemory {
  /** Another object once the memory has grown. */
  readonly buffer: ArrayBuffer | SharedArrayBuffer
  grow(pages: number): number
}

type GrowingMemory = KernelMemory & Memory

const PAGE = 65536
const MAX_PAGES = 65536

const modules = new Map<string, object>()
let available: boolean | undefined

/** Whether this engine runs WebAssembly. */
export function wasmAvailable(): boolean {
  return typeof WebAssembly === 'object'
}

/** Whether this engine runs WebAssembly SIMD. */
export function simdAvailable(): boolean {
  const returnsNothing = moduleOf(0, 0, 1, [0x41, 0, 0xfd, 0x11, 0x21, 0]) // i32.const 0, i32x4.splat, local.set 0
  available ??= wasmAvailable() && WebAssembly.validate(returnsNothing)
  return available
}

/** A memory of at least `bytes`; undefined beyond 4 GiB. */
export function createMemory(bytes: number): Memory | undefined {
  const pages = Math.ceil(bytes / PAGE)
  return pages > MAX_PAGES ? undefined : new WebAssembly.Memory({ initial: pages, maximum: pages })
}

/**
 * A memory of at least `bytes` that can grow up to 4 GiB. Shared memories need threads that may share memory: Node, or a page that is
 * cross-origin isolated.
 */
export function createKernelMemory(bytes: number, shared = false): KernelMemory {
  const initial = Math.max(1, Math.ceil(bytes / PAGE))
  return new WebAssembly.Memory({ initial, maximum: MAX_PAGES, ...(shared ? { shared } : {}) })
}

/** Makes `memory` at least `bytes` long; false where it cannot be. */
export function growKernelMemory(memory: KernelMemory, bytes: number): boolean {
  const missing = Math.ceil(bytes / PAGE) - memory.buffer.byteLength / PAGE
  if (missing <= 0) return true
  try {
    memory.grow(missing)
    return true
  } catch {
    return false
  }
}

/** The `run` of the module that `code` gives for such a memory. Compiled once per `key` and kind of memory. */
export function instantiateOver(
  key: string,
  code: (limits: Code) => Uint8Array<ArrayBuffer>,
  memory: KernelMemory,
): (...args: number[]) => void {
  const isShared = typeof SharedArrayBuffer === 'function' && memory.buffer instanceof SharedArrayBuffer
  const kind = isShared ? 'shared' : 'own'
  return instantiate(`${kind} ${key}`, () => code(MEMORY_LIMITS[kind]), memory)
}

/** The `run` of the module that `code` gives, over `memory`. Compiled once per `key`. */
export function instantiate(
  key: string,
  code: () => Uint8Array<ArrayBuffer>,
  memory: Memory | KernelMemory,
): (...args: number[]) => void {
  const module = modules.get(key) ?? new WebAssembly.Module(code())
  modules.set(key, module)
  return new WebAssembly.Instance(module, { env: { memory } }).exports.run
}
