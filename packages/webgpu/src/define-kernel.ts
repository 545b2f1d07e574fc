/** How a kernel may use one of its buffers, and what WGSL sees in it: an array of `type`. */
export interface Binding {
  readonly access: 'read' | 'read-write'
  readonly type: 'u32' | 'f32' | 'vec4u' | 'vec4f' | 'atomic<u32>'
}

/** Workgroups in x, y and z. */
export type Grid = readonly [x: number, y: number, z: number]

/** What `defineKernel` takes. B names the bindings, P the parameters, O the overrides. */
export interface KernelSpec<B extends string, P extends string, O extends string> {
  readonly name: string
  readonly bindings: Readonly<Record<B, Binding>>
  /** Numbers of one dispatch: sizes, offsets, scalars. In WGSL `params.x`. A u32 is given as its unsigned value. */
  readonly params: Readonly<Record<P, 'u32' | 'f32'>>
  /** Numbers that the pipeline is compiled with (u32), and their defaults. In WGSL by their names. */
  readonly overrides?: Readonly<Record<O, number>>
  readonly workgroup: Grid
  readonly enable?: readonly ('f16' | 'subgroups')[]
  /** Functions, constants and workgroup variables. */
  readonly declarations?: string
  /** The statements of `main`. They see `group`, `groups`, `id`, `local` (vec3u) and `lane` (u32, within the workgroup). */
  readonly main: string
  /** How many workgroups the parameters ask for. */
  grid(params: Readonly<Record<P, number>>, overrides: Readonly<Record<O, number>>): Grid
}

/** A compute kernel: plain data and its WGSL. It belongs to no device; a device compiles it when it first runs. */
export interface GpuKernel<B extends string = string, P extends string = string, O extends string = string>
  extends KernelSpec<B, P, O> {
  readonly overrides: Readonly<Record<O, number>>
  /** The whole module. */
  readonly wgsl: string
}

/**
 * A kernel from its bindings, parameters and the body of `main`; the declarations that WGSL wants for them are written
 * here, so that host and shader cannot disagree. Bindings are numbered in their order, the parameters' uniform comes last.
 */
export function defineKernel<B extends string, P extends string, O extends string = never>(
  spec: KernelSpec<B, P, O>,
): GpuKernel<B, P, O> {
  const overrides = spec.overrides ?? ({} as Record<O, number>)
  return { ...spec, overrides, wgsl: moduleOf({ ...spec, overrides }) }
}

/** Ceil of a / b, for grids. */
export function divideUp(a: number, b: number): number {
  return Math.ceil(a / b)
}

/** A row of workgroups, folded where it exceeds what one dimension may have. In WGSL: `group.x + group.y * groups.x`. */
export function foldedGrid(count: number): Grid {
  const rows = divideUp(count, MAX_GRID)
  return rows <= 1 ? [count, 1, 1] : [divideUp(count, rows), rows, 1]
}

/** Workgroups in one dimension that every device takes. */
const MAX_GRID = 65535

function moduleOf(spec: GpuKernelSource): string {
  const bindings = Object.entries(spec.bindings).map(
    ([name, { access, type }], i) =>
      `@group(0) @binding(${i}) var<storage, ${access === 'read' ? 'read' : 'read_write'}> ${name}: array<${type}>;`,
  )
  const params = Object.entries(spec.params).map(([name, type]) => `  ${name}: ${type},`)
  const uniform = `@group(0) @binding(${bindings.length}) var<uniform> params: Params;`
  const overrides = Object.entries(spec.overrides).map(
    ([name, value]) => `override ${name}: u32 = ${value}u;`,
  )
  return [
    ...(spec.enable ?? []).map((feature) => `enable ${feature};`),
    `// ${spec.name}`,
    ...bindings,
    ...(params.length > 0 ? ['struct Params {', ...params, '}', uniform] : []),
    ...overrides,
    ...(spec.declarations ? ['', spec.declarations.trim()] : []),
    '',
    `@compute @workgroup_size(${spec.workgroup.join(', ')})`,
    `fn main(${builtins(spec)}) {`,
    ...spec.main
      .replace(/^\n|\s+$/g, '')
      .split('\n')
      .map((line) => (line === '' ? '' : `  ${line}`)),
    '}',
    '',
  ].join('\n')
}

type GpuKernelSource = Omit<GpuKernel, 'wgsl' | 'grid'>

function builtins({ enable }: GpuKernelSource): string {
  return [
    '@builtin(workgroup_id) group: vec3u',
    '@builtin(num_workgroups) groups: vec3u',
    '@builtin(global_invocation_id) id: vec3u',
    '@builtin(local_invocation_id) local: vec3u',
    '@builtin(local_invocation_index) lane: u32',
    ...(enable?.includes('subgroups')
      ? ['@builtin(subgroup_size) subgroup_size: u32', '@builtin(subgroup_invocation_id) subgroup_lane: u32']
      : []),
  ].join(', ')
}
