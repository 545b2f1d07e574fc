import { buildKernel, type KernelExpr } from '@polygraft/kernels'
import { expect, it } from 'vitest'
import { tileKernelOf } from './_tile-codegen.js'

const input = (index: number): KernelExpr => ({ op: 'input', index })

it('a graft in WGSL', () => {
  const expr: KernelExpr = { op: 'graft', cpt: input(0), base: input(1), post: input(2), lambda: 0.5 }
  const { wgsl } = tileKernelOf(buildKernel(['BF16', 'F16', 'F32'], [{ expr, dtype: 'BF16' }]), 'native')
  expect(wgsl.slice(wgsl.indexOf('@compute'))).toMatchInlineSnapshot(`
    "@compute @workgroup_size(64, 1, 1)
    fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_id) local: vec3u, @builtin(local_invocation_index) lane: u32) {
      let pair = id.x + id.y * (groups.x * 64u);
      if (pair * 2u < params.count) {
        var word0 = 0u;
        for (var k = 0u; k < 2u; k++) {
          let index = pair * 2u + k;
          let v0 = decode_f16((x[params.in1 + pair] >> (k * 16u)) & 0xffffu);
          let v1 = x[params.in2 + index];
          let v2 = ((x[params.in0 + pair] >> (k * 16u)) & 0xffffu) << 16u;
          let v3 = f_sub(v1, v0);
          let v4 = f_equal(v1, v0);
          var v5 = v2;
          if (!v4) {
            v5 = f_add(v2, f_mul(params.scalar0, v3));
          }
          let stored0 = encode_bf16(v5);
          word0 |= stored0 << (k * 16u);
          if (!v4 && index < params.count) {
            atomicAdd(&tally[0], 1u);
            if (stored0 == encode_bf16(v2)) { atomicAdd(&tally[1], 1u); }
          }
          if ((stored0 & 0x7fffu) >= 0x7f80u && index < params.count) {
            atomicAdd(&tally[2], 1u);
          }
        }
        y[params.out0 + pair] = word0;
      }
      workgroupBarrier();
      for (var i = lane; i < 3u; i += 64u) {
        atomicAdd(&counts[i], atomicLoad(&tally[i]));
      }
    }
    "
  `)
})

it('the whole module, where the floats of the adapter are not exact', async () => {
  const args = [input(0), input(1)]
  const expr: KernelExpr = { op: 'elect', args, by: 'count', zero: 'positive', weights: [0.25, 0.75] }
  const { wgsl } = tileKernelOf(buildKernel(['F32', 'F32'], [{ expr, dtype: 'F32' }]), 'integer')
  await expect(wgsl).toMatchFileSnapshot('../test/golden/elect.wgsl')
})
