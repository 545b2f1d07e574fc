import { moduleOf } from './_wasm.js'

/** The little of the WebAssembly interface that is needed; type libraries have it only together with the DOM. */
declare const WebAssembly: {
  validate(bytes: Uint8Array<ArrayBuffer>): boolean
  Module: new (bytes: Uint8Array<ArrayBuffer>) => object
  Instance: new (module: object, imports: object) => { exports: { run: (...args: number[]) => void } }
  Memory: new (pages: { initial: number; maximum: number }) => Memory
}

/** A memory of fixed size: its buffer never moves. */
export interface Memory {
  readonly buffer: ArrayBuffer
}

const PAGE = 65536
const MAX_PAGES = 65536

const modules = new Map<string, object>()
let available: boolean | undefined

/** Whether this engine runs WebAssembly SIMD. */
export function simdAvailable(): boolean {
  const returnsNothing = moduleOf(0, 0, 1, [0x41, 0, 0xfd, 0x11, 0x21, 0]) // i32.const 0, i32x4.splat, local.set 0
  available ??= typeof WebAssembly === 'object' && WebAssembly.validate(returnsNothing)
  return available
}

/** A memory of at least `bytes`; undefined beyond 4 GiB. */
export function createMemory(bytes: number): Memory | undefined {
  const pages = Math.ceil(bytes / PAGE)
  return pages > MAX_PAGES ? undefined : new WebAssembly.Memory({ initial: pages, maximum: pages })
}

/** The `run` of the module that `code` gives, over `memory`. Compiled once per `key`. */
export function instantiate(
  key: string,
  code: () => Uint8Array<ArrayBuffer>,
  memory: Memory,
): (...args: number[]) => void {
  const module = modules.get(key) ?? new WebAssembly.Module(code())
  modules.set(key, module)
  return new WebAssembly.Instance(module, { env: { memory } }).exports.run
}
