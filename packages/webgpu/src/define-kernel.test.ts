import { defineKernel, divideUp, foldedGrid } from '@polygraft/webgpu'
import { describe, expect, it } from 'vitest'

describe('defineKernel', () => {
  it('writes the declarations for what the kernel says that it takes', () => {
    const kernel = defineKernel({
      name: 'y += factor * x',
      bindings: { x: { access: 'read', type: 'f32' }, y: { access: 'read-write', type: 'f32' } },
      params: { count: 'u32', factor: 'f32' },
      overrides: { STRIDE: 2 },
      workgroup: [64, 1, 1],
      declarations: 'const HALF = 0.5;',
      main: `
if (id.x >= params.count) { return; }
y[id.x * STRIDE] += params.factor * x[id.x];`,
      grid: ({ count }, { STRIDE }) => [divideUp(count, 64 * STRIDE), 1, 1],
    })
    expect(kernel.wgsl).toMatchInlineSnapshot(`
      "// y += factor * x
      @group(0) @binding(0) var<storage, read> x: array<f32>;
      @group(0) @binding(1) var<storage, read_write> y: array<f32>;
      struct Params {
        count: u32,
        factor: f32,
      }
      @group(0) @binding(2) var<uniform> params: Params;
      override STRIDE: u32 = 2u;

      const HALF = 0.5;

      @compute @workgroup_size(64, 1, 1)
      fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
        if (id.x >= params.count) { return; }
        y[id.x * STRIDE] += params.factor * x[id.x];
      }
      "
    `)
    expect(kernel.grid({ count: 257, factor: 1 }, { STRIDE: 2 })).toEqual([3, 1, 1])
  })

  it('takes subgroups with their builtins, and neither parameters nor overrides', () => {
    const kernel = defineKernel({
      name: 'subgroups',
      bindings: { y: { access: 'read-write', type: 'u32' } },
      params: {},
      workgroup: [64, 1, 1],
      enable: ['subgroups'],
      main: 'y[lane] = subgroup_size;',
      grid: () => [1, 1, 1],
    })
    expect(kernel.wgsl).toMatchInlineSnapshot(`
      "enable subgroups;
      // subgroups
      @group(0) @binding(0) var<storage, read_write> y: array<u32>;

      @compute @workgroup_size(64, 1, 1)
      fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_size) subgroup_size: u32, @builtin(subgroup_invocation_id) subgroup_lane: u32) {
        y[lane] = subgroup_size;
      }
      "
    `)
  })
})

it('foldedGrid has at least as many workgroups as asked for, none of them beyond what a dimension may have', () => {
  for (const count of [0, 1, 65_535, 65_536, 131_071, 10_000_000]) {
    const [x, y, z] = foldedGrid(count)
    expect(x * y * z).toBeGreaterThanOrEqual(count)
    expect(x * y * z).toBeLessThan(count + y + 1)
    expect(Math.max(x, y, z)).toBeLessThan(65_536)
  }
})
