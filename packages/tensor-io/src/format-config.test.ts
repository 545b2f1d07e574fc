import type { JsonObject } from '@polygraft/tensor'
import { floatFieldsOf, formatConfig, parseJson } from '@polygraft/tensor-io'
import fc from 'fast-check'
import { expect, it } from 'vitest'

const text = `{
  "model_type": "llama",
  "eps": 1e-05,
  "jitter": 0.0,
  "layers": 4,
  "theta": 10000.0,
  "rope": {
    "factor": 8.0,
    "factors": [
      1.0,
      1.5
    ],
    "length": 8192
  },
  "empty": [],
  "none": {},
  "quote\\"d": "\\"x\\": 1.0",
  "null": null
}
`

it('knows the fields whose numbers are floats', () => {
  expect(floatFieldsOf(text)).toEqual(['eps', 'factor', 'factors', 'jitter', 'theta'])
})

it('writes floats as floats, and whole numbers as whole', () => {
  const config = parseJson(text) as JsonObject
  expect(formatConfig(config, floatFieldsOf(text))).toBe(text.replace('1e-05', '0.00001'))
  expect(formatConfig({ layers: 4 })).toBe('{\n  "layers": 4\n}\n')
  expect(formatConfig({ tiny: 1e-7, large: 1e30 }, ['tiny', 'large'])).toBe(
    '{\n  "tiny": 1e-7,\n  "large": 1e+30\n}\n',
  )
})

it('says what JSON.stringify says where nothing is a float', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      expect(formatConfig(value as JsonObject)).toBe(`${JSON.stringify(value, undefined, 2)}\n`)
    }),
  )
})
