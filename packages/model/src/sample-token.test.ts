import { sampleToken } from '@polygraft/model'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'

const LOGITS = Float32Array.of(1, 3, 2, 3, -1)
const draws = (sampling: Parameters<typeof sampleToken>[1], count = 4000) =>
  Array.from({ length: count }, (_, position) => sampleToken(LOGITS, sampling, position))

describe('sampleToken', () => {
  it('at temperature 0 is the largest, of equal ones the first', () => {
    expect(new Set(draws({}, 20))).toEqual(new Set([1]))
  })

  it('draws by softmax of the logits over the temperature', () => {
    const temperature = 2
    const weights = [...LOGITS].map((logit) => Math.exp(logit / temperature))
    const total = weights.reduce((a, b) => a + b, 0)
    const drawn = draws({ temperature, seed: 5 })
    for (const [id, weight] of weights.entries()) {
      const share = drawn.filter((token) => token === id).length / drawn.length
      const deviation = Math.sqrt(((weight / total) * (1 - weight / total)) / drawn.length)
      expect(Math.abs(share - weight / total)).toBeLessThan(5 * deviation)
    }
  })

  it.each([
    [{ topK: 3 }, [1, 2, 3]],
    [{ topK: 1 }, [1]],
    [{ topP: 0.7 }, [1, 3]],
    [{ topP: 0 }, [1]],
    [{ minP: 0.3 }, [1, 2, 3]],
    [{ minP: 1 }, [1, 3]],
    [{ topK: 4, minP: 0.2, topP: 0.99 }, [1, 2, 3]],
  ])('%o leaves tokens %j', (filters, expected) => {
    const seen = new Set(draws({ temperature: 1, ...filters }))
    expect([...seen].sort()).toEqual(expected)
  })

  it('depends on seed and position alone', () => {
    fc.assert(
      fc.property(fc.nat(), fc.nat(), (seed, position) => {
        const sampling = { temperature: 1.5, seed }
        expect(sampleToken(LOGITS, sampling, position)).toBe(sampleToken(LOGITS.slice(), sampling, position))
      }),
    )
    expect(draws({ temperature: 1, seed: 1 }, 50)).not.toEqual(draws({ temperature: 1, seed: 2 }, 50))
  })
})
