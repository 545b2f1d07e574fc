import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { BASE, createTemp, run, succeed, type Temp, TRIO } from './support.js'

let temp: Temp
beforeAll(async () => {
  temp = await createTemp()
})

const text = (name: string) => join(TRIO, `../data/raw-${name}.txt`)
const TEXTS = ['a', 'c', 'd'].flatMap((name) => ['--text', `${name}=${text(name)}`])
const upcycle = (out: string, ...flags: readonly string[]) => ['upcycle', BASE, '-o', temp.at(out), ...flags]

describe.concurrent.each(['means', 'lda'])('upcycle --router %s', (kind) => {
  it('sends the tokens of each language to its own expert before any training', async () => {
    const { recipe, experts, warnings } = await succeed(upcycle(kind, '--router', kind, ...TEXTS))
    expect(experts).toEqual(['original', 'c', 'd'])
    expect(recipe[0].router).toEqual({ kind, tokens: [3072, 3072, 3072] })
    expect(warnings).toEqual([])
    await succeed(['verify', temp.at(kind), '--base', BASE])
    const { languages, routers } = await succeed(['route', temp.at(kind), ...TEXTS])
    expect(Object.values<{ contrast: number }>(routers).every(({ contrast }) => contrast < 5)).toBe(true)
    // Two of three experts for a token: half of the choices is the most that one can get.
    for (const [own, name] of ['a', 'c', 'd'].entries())
      for (const { share } of languages[name]) {
        expect(share[own]).toBeGreaterThan(0.39)
        expect(Math.max(...share)).toBe(share[own])
      }
  })
})

describe.concurrent('upcycle with text', () => {
  it('takes languages that no expert is labelled with for the original ones', async () => {
    const flags = ['--languages', 'd', '--router', 'means', '--text-tokens', '20', ...TEXTS]
    const { recipe, experts } = await succeed(upcycle('labelled', ...flags))
    expect(experts).toEqual(['original', 'd'])
    expect(recipe[0].router.tokens).toEqual([20, 20])
  })

  it('reads no weights in a dry run', async () => {
    const { dryRun, problems } = await succeed(upcycle('dry', '--router', 'lda', '--dry-run', ...TEXTS))
    expect({ dryRun, problems }).toEqual({ dryRun: true, problems: [] })
  })

  it('refuses texts that are the same, and experts without text', async () => {
    const same = ['--router', 'means', '--text', `a=${text('a')}`, '--text', `b=${text('a')}`]
    const refused = async (args: readonly string[]) =>
      JSON.parse((await run([...args, '--json'])).stdout).error
    expect((await refused(upcycle('same', ...same))).code).toBe('same-samples')
    const few = ['--router', 'means', '--languages', 'c,x', ...TEXTS]
    const { problems } = await refused(upcycle('few', ...few))
    expect(problems).toMatchObject([{ code: 'no-samples', received: 'none for x' }])
  })

  it.each([
    ['text that nothing asks for', TEXTS],
    ['no text', ['--router', 'means', '--languages', 'c']],
    ['a mean of models', ['--router', 'lda', '--others', 'mean', ...TEXTS]],
  ])('refuses %s as arguments', async (_, flags) => {
    expect((await run(upcycle('wrong', ...flags))).code).toBe(2)
  })
})
