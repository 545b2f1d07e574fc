import { formatEvent, formatEventFileStart } from '@polygraft/train'
import { expect, it } from 'vitest'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')

// What tensorboard 2.21.0 itself writes: tools/golden/tensorboard_events.py prints these lines.
const START = '1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c'
const EVENT =
  '3700000000000000e7e8ca5909000000000000f83f10ac022a290a110a0a747261696e2f6c6f737315000020400a140a0d6c6f61642f6578706572745f30150000803e1629edda'

it('writes the bytes that TensorBoard writes', () => {
  expect(hex(formatEventFileStart(1.5))).toBe(START)
  expect(hex(formatEvent(1.5, 300, { 'train/loss': 2.5, 'load/expert_0': 0.25 }))).toBe(EVENT)
})
