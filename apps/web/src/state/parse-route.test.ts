import { describe, expect, it } from 'vitest'
import { hrefOf, parseRoute } from './parse-route.js'

describe('parseRoute', () => {
  it.each([
    ['', 'open'],
    ['#/', 'open'],
    ['#/compare', 'compare'],
    ['#/nothing', 'open'],
  ])('%s is %s', (hash, page) => expect(parseRoute(hash).page).toBe(page))

  it('gives back what hrefOf was given', () => {
    const model = 'hf:org/name@a b&c=d?e'
    const { page, parameters } = parseRoute(hrefOf('inspect', { model, tensor: '' }))
    expect([page, Object.fromEntries(parameters)]).toEqual(['inspect', { model }])
  })
})
