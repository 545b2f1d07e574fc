import { expect, it } from 'vitest'
import { signed, unsigned } from './_wasm.js'

it('LEB128 as in the specification', () => {
  expect(unsigned(624485)).toEqual([0xe5, 0x8e, 0x26])
  expect(unsigned(127)).toEqual([0x7f])
  expect(unsigned(0xffffffff)).toEqual([0xff, 0xff, 0xff, 0xff, 0x0f])
  expect(signed(-123456)).toEqual([0xc0, 0xbb, 0x78])
  expect(signed(63)).toEqual([63])
  expect(signed(64)).toEqual([0xc0, 0x00])
  expect(signed(0x80000000)).toEqual([0x80, 0x80, 0x80, 0x80, 0x78])
})
