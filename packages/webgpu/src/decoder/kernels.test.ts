import { expect, it } from 'vitest'
import { attention } from './attention.js'
import { addScaled, combineExperts, copyWords, embedding, gatedActivation } from './elementwise.js'
import { gateTopK } from './gate.js'
import { largest } from './largest.js'
import { matmul } from './matmul.js'
import { expertMatvec, matvec } from './matvec.js'
import { rmsNorm } from './rms-norm.js'
import { rope } from './rope.js'

const KERNELS = [
  ...[attention, addScaled, combineExperts, copyWords, embedding, gatedActivation, gateTopK],
  ...[largest, matmul, matvec, expertMatvec, rmsNorm, rope],
]

it.each(KERNELS)('the WGSL of $name', async ({ name, wgsl }) => {
  await expect(wgsl).toMatchFileSnapshot(`../../test/golden/${name.toLowerCase().replaceAll(' ', '-')}.wgsl`)
})
