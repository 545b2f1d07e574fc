import { appendFile, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  BASE,
  CPT,
  copyOf,
  createTemp,
  editJson,
  flipBit,
  INSTRUCT,
  listing,
  run,
  runJson,
  succeed,
  type Temp,
  TRIO,
  tensorsOf,
  writeModel,
} from './support.js'

const PAIR = ['--base', BASE, '--post', INSTRUCT]
const SOURCES = [...PAIR, '--cpt', CPT]

let temp: Temp
const at = (name: string) => temp.at(name)
beforeAll(async () => {
  temp = await createTemp()
  await Promise.all([
    succeed(['delta', BASE, INSTRUCT, '-o', at('delta')]),
    succeed(['upcycle', BASE, '-o', at('upcycled'), '--languages', 'c,d', '--seed', '7']),
    succeed(['graft', CPT, '-o', at('grafted'), ...PAIR]),
  ])
})

describe.concurrent('inspect', () => {
  it('a dense model', async () => {
    const { code, json, stderr } = await runJson(['inspect', BASE])
    expect([code, stderr]).toEqual([0, ''])
    expect(json).toMatchObject({
      checkpoint: BASE,
      family: 'llama',
      parameters: 213568,
      bytes: 427136,
      tensorCount: 39,
    })
    expect(json.dtypes).toEqual({ BF16: { tensors: 39, parameters: 213568, bytes: 427136 } })
    expect(Object.keys(json.groups).sort()).toEqual(['attention', 'embedding', 'ffn', 'head', 'norm'])
    expect(json.shards).toHaveLength(2)
    expect(json.files).toContain('tokenizer.json')
    expect(json.tensors).toBeUndefined()
  })

  it('for people', async () => {
    const { stdout } = await run(['inspect', 'cpt', '--tensors'], { cwd: TRIO })
    expect(stdout).toMatch(
      /^cpt: MixtralForCausalLM\n {2}parameters 509 k, 362 k active per token; 1\.02 MB in 2 files; /,
    )
    expect(stdout).toContain('experts 0 original, 1 c, 2 d')
    expect(stdout).toMatch(/^group +tensors +parameters +size$/m)
    expect(stdout).toMatch(/^model\.norm\.weight +BF16 +\[64\] +128 B$/m)
  })

  it('a delta says what it is', async () => {
    const { stdout } = await run(['inspect', at('delta')])
    expect(stdout).toContain('dtypes F32')
    expect(stdout).toContain('made by delta')
    expect((await succeed(['inspect', at('delta')])).recipe[0].op).toBe('delta')
  })

  it('one file without a config, and a family that we do not know', async () => {
    await writeModel(at('odd'), { config: { tie_word_embeddings: true } })
    const json = await succeed(['inspect', join(at('odd'), 'model.safetensors')])
    expect(json.family).toBe('llama')
    await writeFile(join(at('odd'), 'config.json'), '{"model_type":"gemma2"}')
    const { stdout } = await run(['inspect', at('odd')])
    expect(stdout).toContain('unknown architecture')
    expect(stdout).toMatch(/nothing but inspect and diff will do: gemma2 is not supported: .*norms/)
    expect(stdout).toMatch(/^all +20 /m)
    const lone = join(at('lone'), 'model.safetensors')
    await copyOf(join(at('odd'), 'model.safetensors'), lone)
    const alone = await succeed(['inspect', lone])
    expect(alone).toMatchObject({
      family: null,
      familyProblem: 'no config.json that says what model this is',
    })
  })
})

describe.concurrent('diff', () => {
  it('measures what changed, most first', async () => {
    const json = await succeed(['diff', BASE, INSTRUCT])
    expect(json.tensors).toHaveLength(39)
    const relative = json.tensors.map(({ relativeNorm }: { relativeNorm: number }) => relativeNorm)
    expect(relative).toEqual([...relative].sort((a, b) => b - a))
    expect(json.total).toMatchObject({ count: 213568 })
    expect(json).toMatchObject({ onlyInBase: [], onlyInPost: [], notMeasured: [], warnings: [] })
  })

  it('with itself: nothing', async () => {
    const { total } = await succeed(['diff', BASE, BASE])
    expect(total).toMatchObject({ norm: 0, maxAbs: 0, changedShare: 0 })
  })

  it('for people', async () => {
    const { stdout } = await run(['diff', BASE, INSTRUCT, '--top', '1'])
    expect(stdout).toMatch(/^tensor +norm +relative +cosine +changed +largest$/m)
    expect(stdout).toContain('... 38 more tensors (--top 0 shows all)')
    expect(stdout).toMatch(/^total /m)
    expect((await run(['diff', BASE, INSTRUCT, '--top', '0'])).stdout).not.toContain('more tensors')
  })

  it('a mixture with the dense model that it came from, as far as they go together', async () => {
    const json = await succeed(['diff', BASE, at('upcycled')])
    expect(json.total.norm).toBe(0)
    expect(json.onlyInBase).toHaveLength(12)
    expect(json.onlyInPost.length).toBeGreaterThan(36)
    const { stdout } = await run(['diff', BASE, at('upcycled')])
    expect(stdout).toMatch(/^only in base: model\.layers\.0\.mlp\./m)
  })

  it('by token where tokenizers differ', async () => {
    const tokens = [...'abcdefgh']
    const base = await writeModel(at('tokens-base'), { config: { vocab_size: 8 }, tokens })
    const post = await writeModel(at('tokens-post'), {
      config: { vocab_size: 10 },
      tokens: [...tokens, '<x>', '<y>'],
    })
    const json = await succeed(['diff', base, post])
    expect(json.vocabulary).toEqual({ compared: 8, inBase: 8, inPost: 10 })
    expect((await run(['diff', base, post])).stdout).toContain('by token, 8 rows of 8 in base and 10 in post')
  })

  it('by id, with a warning, where one id has two tokens', async () => {
    const base = await writeModel(at('ids-base'), { tokens: [...'abcdefghij'] })
    const post = await writeModel(at('ids-post'), { tokens: [...'abcdefghiX'] })
    const { code, json, stderr } = await runJson(['diff', base, post])
    expect(code).toBe(0)
    expect(json.total.norm).toBe(0)
    expect(json.warnings[0].code).toBe('vocabulary-collision')
    expect(stderr).toBe('')
    expect((await run(['diff', base, post])).stderr).toContain('warning')
  })
})

describe.concurrent('delta', () => {
  it('is a checkpoint in F32 that knows its base', async () => {
    const { family, dtypes, recipe } = await succeed(['inspect', at('delta')])
    expect(family).toBe('llama')
    expect(Object.keys(dtypes)).toEqual(['F32'])
    const { id } = await succeed(['inspect', BASE])
    expect(recipe[0].inputs.base).toBe(id)
    const manifest = JSON.parse(await readFile(join(at('delta'), 'polygraft.json'), 'utf8'))
    expect(manifest.inputs.map(({ location }: { location: string }) => location)).toEqual([BASE, INSTRUCT])
  })

  it('is post - base in F32', async () => {
    const [base, post, delta] = await Promise.all([BASE, INSTRUCT, at('delta')].map(tensorsOf))
    for (const [name, { bytes }] of delta!) {
      const [a, b] = [bf16(base!.get(name)!.bytes), bf16(post!.get(name)!.bytes)]
      const found = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
      expect(found.every((value, i) => Object.is(value, Math.fround(b[i]! - a[i]!)))).toBe(true)
    }
  })
})

describe.concurrent('upcycle', () => {
  it('every expert is the base', async () => {
    const json = await succeed(['verify', at('upcycled'), '--base', BASE])
    expect(json.ok).toBe(true)
    expect(json.checks.map(({ name }: { name: string }) => name)).toContain('experts')
  })

  it('says in polygraft.json what it did', async () => {
    const manifest = JSON.parse(await readFile(join(at('upcycled'), 'polygraft.json'), 'utf8'))
    expect(manifest.experts).toEqual(['original', 'c', 'd'])
    expect(manifest.recipe).toMatchObject([
      {
        op: 'upcycle',
        experts: 3,
        topK: 2,
        target: 'mixtral',
        router: 'xavier',
        seed: 7,
        languages: ['c', 'd'],
      },
    ])
  })

  it('draws routers by seed', async () => {
    const options = ['--experts', '3', '--router', 'orthogonal']
    await Promise.all([
      succeed(['upcycle', BASE, '-o', at('seed-1'), ...options, '--seed', '1']),
      succeed(['upcycle', BASE, '-o', at('seed-1-again'), ...options, '--seed', '1']),
      succeed(['upcycle', BASE, '-o', at('seed-2'), ...options, '--seed', '2']),
    ])
    const [one, again, two] = await Promise.all(
      ['seed-1', 'seed-1-again', 'seed-2'].map((name) => tensorsOf(at(name))),
    )
    expect(again).toEqual(one)
    const different = [...one!].filter(([name, tensor]) => !tensor.bytes.equals(two!.get(name)!.bytes))
    expect(different.map(([name]) => name)).toEqual(
      [0, 1, 2, 3].map((layer) => `model.layers.${layer}.block_sparse_moe.gate.weight`),
    )
  })

  it('warns on stderr of what may surprise, and in the JSON', async () => {
    const args = ['upcycle', BASE, '--experts', '2', '--expert-noise', '0.01', '-o', at('noise')]
    const { stderr } = await run([...args, '--dry-run'])
    expect(stderr).toMatch(/^warning Noise on the experts/)
    const { warnings } = await succeed(args)
    expect(warnings).toMatchObject([{ code: 'not-function-preserving' }])
  })
})

describe.concurrent('graft', () => {
  it('holds the method’s properties', async () => {
    const json = await succeed(['verify', at('grafted'), ...SOURCES])
    expect(json.checks.filter(({ ok }: { ok: boolean }) => !ok)).toEqual([])
    expect(json.checks.map(({ name }: { name: string }) => name).sort()).toEqual(
      [
        'config',
        'digests',
        'files',
        'finite',
        'frozen',
        'graft',
        'parameters',
        'routers',
        'tensors',
        'ungraft',
      ].sort(),
    )
  })

  it('takes tokenizer files from the instruct model, and says so', async () => {
    for (const name of ['tokenizer.json', 'chat_template.jinja', 'generation_config.json'])
      expect(await readFile(join(at('grafted'), name))).toEqual(await readFile(join(INSTRUCT, name)))
    const manifest = JSON.parse(await readFile(join(at('grafted'), 'polygraft.json'), 'utf8'))
    expect(manifest.recipe.at(-1)).toMatchObject({ op: 'graft', lambda: 1, tokenizer: 'post' })
    expect(manifest.delta.swallowed).toBeGreaterThan(0)
  })

  it('with a stored delta: nearly the same, and it verifies', async () => {
    await succeed(['graft', CPT, '-o', at('by-delta'), '--delta', at('delta')])
    expect((await succeed(['verify', at('by-delta'), ...SOURCES])).ok).toBe(true)
    const [pair, stored] = await Promise.all([tensorsOf(at('grafted')), tensorsOf(at('by-delta'))])
    let [elements, differing] = [0, 0]
    for (const [name, { bytes }] of pair) {
      const other = stored.get(name)!.bytes
      elements += bytes.length / 2
      for (let i = 0; i < bytes.length; i += 2)
        if (bytes.readUInt16LE(i) !== other.readUInt16LE(i)) differing++
    }
    expect(differing / elements).toBeLessThan(0.01)
  })

  it('--lambda scales the delta', async () => {
    await Promise.all([
      succeed(['graft', CPT, '-o', at('lambda-0'), ...PAIR, '--lambda', '0']),
      succeed(['graft', CPT, '-o', at('lambda-half'), ...PAIR, '--lambda', '-0.5']),
    ])
    const [cpt, zero, half, base, post] = await Promise.all(
      [CPT, at('lambda-0'), at('lambda-half'), BASE, INSTRUCT].map(tensorsOf),
    )
    expect(zero).toEqual(cpt)
    const name = 'model.layers.1.self_attn.q_proj.weight'
    const [c, b, p] = [cpt, base, post].map((from) => bf16(from!.get(name)!.bytes))
    const expected = c!.map((x, i) => {
      const delta = Math.fround(p![i]! - b![i]!)
      return delta === 0 ? x : toBf16(Math.fround(x + Math.fround(-0.5 * delta)))
    })
    expect(bf16(half!.get(name)!.bytes)).toEqual(expected)
    expect((await succeed(['verify', at('lambda-half'), ...SOURCES])).ok).toBe(true)
  })

  it('--expert-lambda and --layer-lambda', async () => {
    await Promise.all([
      succeed(['graft', CPT, '-o', at('experts'), ...PAIR, '--expert-lambda', '1=0']),
      succeed(['graft', CPT, '-o', at('layers'), ...PAIR, '--layer-lambda', '0=0,2=0']),
    ])
    const [cpt, whole, experts, layers] = await Promise.all(
      [CPT, at('grafted'), at('experts'), at('layers')].map(tensorsOf),
    )
    for (const [name, { bytes }] of whole!) {
      const isExpert1 = name.includes('.experts.1.')
      expect(experts!.get(name)!.bytes.equals((isExpert1 ? cpt! : whole!).get(name)!.bytes)).toBe(true)
      const isStill = /\.layers\.[02]\./.test(name)
      expect(layers!.get(name)!.bytes.equals(isStill ? cpt!.get(name)!.bytes : bytes)).toBe(true)
    }
    for (const name of ['experts', 'layers'])
      expect((await succeed(['verify', at(name), ...SOURCES])).ok).toBe(true)
  })

  it('--fold-router changes the routers and nothing else', async () => {
    await succeed(['graft', CPT, '-o', at('folded'), ...PAIR, '--fold-router'])
    const [whole, folded] = await Promise.all([tensorsOf(at('grafted')), tensorsOf(at('folded'))])
    const changed = [...whole].filter(([name, { bytes }]) => !bytes.equals(folded.get(name)!.bytes))
    expect(changed).toHaveLength(4)
    expect(changed.every(([name]) => name.endsWith('gate.weight'))).toBe(true)
    expect((await succeed(['verify', at('folded'), ...SOURCES])).ok).toBe(true)
  })

  it('a dense model takes the delta too', async () => {
    await succeed(['graft', BASE, '-o', at('dense'), ...PAIR])
    expect(await tensorsOf(at('dense'))).toEqual(await tensorsOf(INSTRUCT))
  })
})

describe.concurrent('what every writing command has', () => {
  const commands: [string, string[], string[]][] = [
    ['delta', [BASE, INSTRUCT], [BASE, INSTRUCT]],
    ['upcycle', [BASE, '--languages', 'c,d'], [BASE]],
    ['graft', [CPT, ...PAIR], [CPT, BASE, INSTRUCT]],
  ]

  it.each(commands)(
    '%s --dry-run tells what will be read and written, and makes nothing',
    async (command, args, inputs) => {
      const { dir } = await createTemp()
      const out = join(dir, 'deep', 'out')
      const planned = await succeed([command, ...args, '-o', out, '--dry-run'])
      expect(await readdir(dir)).toEqual([])
      const written = await succeed([command, ...args, '-o', out])
      const { bytesRead, bytesWritten, parameters, peakBytes, shardCount } = planned
      expect(planned).toMatchObject({ dryRun: true, out, problems: [], warnings: [] })
      expect(written).toMatchObject({ bytesRead, bytesWritten, parameters, peakBytes, shardCount })
      const { size } = await stat(join(out, 'model.safetensors'))
      expect(bytesWritten).toBe(size)
      // These jobs read every tensor of every input once.
      const sizes = await Promise.all(inputs.map(async (input) => (await succeed(['inspect', input])).bytes))
      expect(bytesRead).toBe(sizes.reduce((sum, bytes) => sum + bytes, 0))
      expect(peakBytes).toBeLessThan(512 * 2 ** 20)
      const human = await run([command, ...args, '-o', join(dir, 'other'), '--dry-run'])
      expect(human.stdout).toMatch(
        /^would write .*\n {2}parameters .*\n {2}read .*\n {2}written .* in 1 shard\n {2}memory .*\nno problems found\n$/,
      )
    },
  )

  it.each(commands)('%s --max-shard-size gives the same tensors', async (command, args) => {
    const { dir } = await createTemp()
    const [one, many] = [join(dir, 'one'), join(dir, 'many')]
    const result = await succeed([command, ...args, '-o', many, '--max-shard-size', '100kB'])
    await succeed([command, ...args, '-o', one])
    expect(result.shardCount).toBeGreaterThan(4)
    expect((await readdir(many)).filter((name) => name.endsWith('.safetensors'))).toHaveLength(
      result.shardCount,
    )
    expect(await tensorsOf(many)).toEqual(await tensorsOf(one))
    const { metadata } = JSON.parse(await readFile(join(many, 'model.safetensors.index.json'), 'utf8'))
    expect(metadata.total_size).toBe(
      [...(await tensorsOf(one)).values()].reduce((sum, { bytes }) => sum + bytes.length, 0),
    )
    expect((await succeed(['verify', many])).ok).toBe(true)
  })

  it('--force replaces a whole checkpoint, and the old one only then', async () => {
    const { dir } = await createTemp()
    const out = join(dir, 'out')
    await succeed(['upcycle', BASE, '-o', out, '--experts', '2', '--max-shard-size', '100kB'])
    const before = await listing(dir)
    const refused = await runJson(['graft', CPT, '-o', out, ...PAIR])
    expect(refused.code).toBe(1)
    expect(refused.json.error.code).toBe('exists')
    expect(await listing(dir)).toEqual(before)
    await succeed(['graft', CPT, '-o', out, ...PAIR, '--force'])
    expect((await succeed(['verify', out, ...SOURCES])).ok).toBe(true)
    expect(await readdir(dir)).toEqual(['out'])
    expect((await readdir(out)).filter((name) => name.endsWith('.safetensors'))).toEqual([
      'model.safetensors',
    ])
  })

  it('the same bytes with every number of threads and little memory', async () => {
    const outs = [
      ['--threads', '0'],
      ['--threads', '2'],
      ['--threads', '1', '--memory', '150MiB'],
    ]
    await Promise.all(
      outs.map((options, i) => succeed(['graft', CPT, '-o', at(`threads-${i}`), ...PAIR, ...options])),
    )
    for (const i of [0, 1, 2])
      expect(await tensorsOf(at(`threads-${i}`))).toEqual(await tensorsOf(at('grafted')))
  })

  it('says for people what it wrote', async () => {
    const { stdout, stderr } = await run(['graft', CPT, '-o', 'x', ...PAIR], { cwd: at('.') })
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^wrote x: 509 k parameters, 1\.03 MB in 1 shard, \d/)
    expect(stdout).toContain('experts: 0 original, 1 c, 2 d')
    expect(stdout).toMatch(/delta: 499 k elements changed by post-training, 571 of them \(0\.1 %\) too small/)
  })
})

describe.concurrent('verify finds', () => {
  async function spoil(edit: (dir: string) => Promise<void>): Promise<string> {
    const { dir } = await createTemp()
    const out = await copyOf(at('grafted'), join(dir, 'out'))
    await edit(out)
    return out
  }

  it('a flipped bit', async () => {
    const dir = await spoil((out) => flipBit(join(out, 'model.safetensors')))
    const { code, json } = await runJson(['verify', dir])
    expect(code).toBe(1)
    expect(json.ok).toBe(false)
    expect(json.checks[0]).toMatchObject({
      name: 'digests',
      ok: false,
      detail: expect.stringMatching('model.safetensors'),
    })
    const human = await run(['verify', dir, ...SOURCES])
    expect(human.code).toBe(1)
    expect(human.stdout).toMatch(/^✗ digests: model\.safetensors has another SHA-256$/m)
    expect(human.stdout).toMatch(/^✗ graft: /m)
    expect(human.stdout).toMatch(/[2-9] of 10 checks failed\n$/)
  })

  it('an edited config, by its digest', async () => {
    const dir = await spoil((out) => appendFile(join(out, 'config.json'), ' '))
    const { code, json } = await runJson(['verify', dir])
    expect(code).toBe(1)
    expect(json.checks[0]).toMatchObject({
      name: 'digests',
      ok: false,
      detail: expect.stringMatching('config.json'),
    })
  })

  it.each<[string, RegExp, (manifest: Record<string, unknown>) => void]>([
    [
      'another digest',
      /another SHA-256/,
      (m) => Object.assign((m.shards as object[])[0]!, { sha256: '0'.repeat(64) }),
    ],
    ['another size', /bytes in place of/, (m) => Object.assign((m.shards as object[])[0]!, { bytes: 1 })],
    [
      'a shard too many',
      /is not there/,
      (m) => (m.shards as object[]).push({ file: 'x.safetensors', bytes: 1, sha256: '0'.repeat(64) }),
    ],
    ['a shard too few', /not in the manifest/, (m) => Object.assign(m, { shards: [] })],
  ])('%s in the manifest', async (_, detail, edit) => {
    const dir = await spoil((out) => editJson(join(out, 'polygraft.json'), edit))
    const { code, json } = await runJson(['verify', dir])
    expect([code, json.ok]).toEqual([1, false])
    expect(json.checks[0].detail).toMatch(detail)
  })

  it('another config, and another tokenizer', async () => {
    const dir = await spoil(async (out) => {
      await editJson(join(out, 'config.json'), (config) => Object.assign(config, { rope_theta: 1 }))
      await writeFile(join(out, 'tokenizer.json'), '{}')
    })
    const { json } = await runJson(['verify', dir, ...SOURCES])
    const failed = json.checks
      .filter(({ ok }: { ok: boolean }) => !ok)
      .map(({ name }: { name: string }) => name)
    expect(failed).toEqual(expect.arrayContaining(['config', 'files']))
  })

  it('sources that are not those of the graft', async () => {
    const { code, json } = await runJson([
      'verify',
      at('grafted'),
      '--base',
      INSTRUCT,
      '--post',
      BASE,
      '--cpt',
      CPT,
    ])
    expect([code, json.ok]).toEqual([1, false])
    const upcycled = await runJson(['verify', at('upcycled'), '--base', INSTRUCT])
    expect([upcycled.code, upcycled.json.ok]).toEqual([1, false])
  })

  it.each<[string, string, () => Promise<string>]>([
    ['no manifest', 'missing-manifest', async () => BASE],
    ['no folder', 'missing-manifest', async () => at('nothing')],
    ['a place on the Hub', 'missing-manifest', async () => 'hf:a/b'],
    [
      'a manifest without shards',
      'bad-manifest',
      () => spoil((out) => editJson(join(out, 'polygraft.json'), (m) => delete m.shards)),
    ],
    [
      'a manifest of something else',
      'bad-json',
      () => spoil((out) => writeFile(join(out, 'polygraft.json'), 'nonsense')),
    ],
    [
      'a shard cut short',
      'truncated',
      () =>
        spoil(async (out) => {
          const file = join(out, 'model.safetensors')
          await writeFile(file, (await readFile(file)).subarray(0, 500_000))
        }),
    ],
  ])('%s', async (_, code, make) => {
    const { code: exit, json } = await runJson(['verify', await make()])
    expect([exit, json.error.code]).toEqual([1, code])
    expect(json.error.problems[0].file).toMatch(/polygraft\.json$|model\.safetensors$/)
  })
})

describe.concurrent('demo', () => {
  it('walks the road', async () => {
    const { code, stdout, stderr } = await run(['demo', '-o', at('demo')])
    expect(code).toBe(0)
    // Progress, where the machine is slow.
    expect(stderr.replace(/^((upcycle|graft|verify|diff) \d+ % .* left|measuring .*)\n/gm, '')).toBe('')
    expect([...stdout.matchAll(/^\$ polygraft (\w+)/gm)].map(([, name]) => name)).toEqual([
      'inspect',
      'diff',
      'upcycle',
      'verify',
      'graft',
      'verify',
      'generate',
      'eval',
    ])
    expect(stdout).toContain('10 checks, all hold')
    const right = /^all +(\d+) +(\d+) +(\d+) +140$/m.exec(stdout)!.slice(1).map(Number)
    expect(right[1]).toBe(0)
    expect(Math.min(right[0]!, right[2]!)).toBeGreaterThan(30)
    expect(await readFile(join(at('demo'), 'report.html'), 'utf8')).toContain('Relative norm of the delta')
    expect(stdout).toContain(`The grafted checkpoint, which stock transformers loads: ${at('demo')}/grafted`)
    expect((await succeed(['verify', join(at('demo'), 'grafted'), ...SOURCES])).ok).toBe(true)
  })

  it('as JSON, again into the same place', async () => {
    const json = await succeed(['demo', '-o', at('demo-json')])
    expect(json.steps).toHaveLength(7)
    expect(json.out).toBe(join(at('demo-json'), 'grafted'))
    expect(json.steps[5].result.ok).toBe(true)
    expect(json.steps[6].result.languages.c.perplexity).toBeLessThan(
      json.steps[6].result.reference.languages.c.perplexity,
    )
    const names = json.answers.map(({ name }: { name: string }) => name)
    expect(names).toEqual(['instruct', 'before the graft', 'grafted'])
    expect(json.answers[2].answers).toHaveLength(json.questions.length)
    expect((await stat(json.report)).isFile()).toBe(true)
    await succeed(['demo', '-o', at('demo-json')])
  })

  it('passes on what went wrong', async () => {
    await writeFile(join(at('.'), 'file'), '')
    const { code, json } = await runJson(['demo', '-o', at('file')])
    expect(code).toBe(1)
    expect(json.error.problems[0]).toMatchObject({ code: 'io', file: at('file') })
    await copyOf(join(BASE, 'tokenizer.json'), at('busy/upcycled/tokenizer.json'))
    const busy = await runJson(['demo', '-o', at('busy')])
    expect(busy.code).toBe(1)
    expect(busy.json.error.code).toBe('unsafe-output')
  })
})

function bf16(bytes: Buffer): Float32Array {
  const words = new Uint32Array(bytes.length / 2)
  for (let i = 0; i < words.length; i++) words[i] = bytes.readUInt16LE(2 * i) << 16
  return new Float32Array(words.buffer)
}

/** Rounds to nearest even, as a value of F32. */
function toBf16(value: number): number {
  const bits = new Uint32Array(new Float32Array([value]).buffer)[0]!
  const rounded = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000
  return new Float32Array(new Uint32Array([rounded]).buffer)[0]!
}
