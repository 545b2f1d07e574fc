import { hubUrl } from '@polygraft/tensor-io'
import { describe, expect, it } from 'vitest'
import { parseBytes, parseIndexed, parseList, parseReal, parseWhole } from '../src/arguments.js'
import { formatBytes, formatCount, formatNumber, formatShare, formatTable, plural } from '../src/format.js'
import { BASE, CPT, INSTRUCT, run, runJson } from './support.js'

describe('parsers', () => {
  it.each([
    ['5GB', 5e9],
    ['512MiB', 512 * 2 ** 20],
    ['1.5 kb', 1500],
    [' 7 ', 7],
    ['2TiB', 2 * 2 ** 40],
  ])('parseBytes %j', (text, bytes) => expect(parseBytes(text)).toBe(bytes))
  it.each([
    '',
    '0',
    '0.4',
    '-5GB',
    '5XB',
    'GB',
    '5GB5',
    '1e9',
    'NaN',
    '?',
    '1e400GB',
    `${'9'.repeat(400)}GB`,
  ])('parseBytes refuses %j', (text) => expect(() => parseBytes(text)).toThrow(/5GB/))

  it('parseWhole', () => {
    expect(parseWhole(0)('0')).toBe(0)
    expect(parseWhole(1, 8)('8')).toBe(8)
    for (const text of ['', '-1', '1.0', '1e3', ' 1', '0x1', '9007199254740993', '٣'])
      expect(() => parseWhole(0)(text)).toThrow('whole number of at least 0')
    expect(() => parseWhole(1, 8)('9')).toThrow('from 1 to 8')
  })

  it('parseReal', () => {
    expect(['1', '-0.5', '1e-3'].map(parseReal)).toEqual([1, -0.5, 1e-3])
    for (const text of ['', ' ', 'x', '1,5', 'NaN', 'Infinity', '1e400'])
      expect(() => parseReal(text)).toThrow('number')
  })

  it('parseIndexed', () => {
    expect([...parseIndexed('0=1, 2=-0.8')]).toEqual([
      [0, 1],
      [2, -0.8],
    ])
    for (const text of ['', '0', '0=', '=1', '-1=1', '0=1,', '0=1=2', 'a=1'])
      expect(() => parseIndexed(text)).toThrow(/Expected/)
    expect(() => parseIndexed('1=1,1=2')).toThrow('Index 1 is given twice')
  })

  it('parseList', () => {
    expect(parseList('el, hu,tr')).toEqual(['el', 'hu', 'tr'])
    for (const text of ['', 'el,', ',el']) expect(() => parseList(text)).toThrow('el,hu,tr')
    expect(() => parseList('el,el')).toThrow('twice')
  })
})

describe('locations on the Hub', () => {
  it.each([
    ['hf:a/b', 'https://hub.test/a/b/resolve/main/'],
    ['hf:a/b.c-1@v1', 'https://hub.test/a/b.c-1/resolve/v1/'],
    ['hf:a/b@refs/pr/1', 'https://hub.test/a/b/resolve/refs%2Fpr%2F1/'],
  ])('%s', (location, url) => expect(hubUrl(location, 'https://hub.test/')).toBe(url))
  it.each(['hf:', 'hf:a', 'hf:a/b/c', 'hf:a/b@', 'hf:a/b?x', 'hf:../..'])('refuses %s', (location) =>
    expect(() => hubUrl(location)).toThrow(expect.objectContaining({ code: 'bad-location' })),
  )
})

it('numbers for people', () => {
  expect([0, 999, 1000, 1234567, 2e12].map(formatBytes)).toEqual([
    '0 B',
    '999 B',
    '1.00 kB',
    '1.23 MB',
    '2.00 TB',
  ])
  // Rounding must not leave a unit behind.
  expect(formatBytes(999_999)).toBe('1.00 MB')
  expect([9999, 12_345, 8.03e9].map(formatCount)).toEqual(['9999', '12.3 k', '8.03 B'])
  expect(formatCount(999_999)).toBe('1.00 M')
  expect([0, 1, 0.123, 0.00004321].map(formatShare)).toEqual(['0 %', '100 %', '12.3 %', '0.0043 %'])
  // Not all is not everything.
  expect([0.999, 0.99996].map(formatShare)).toEqual(['99.9 %', '99.996 %'])
  expect([0, 1e-9, 0.123456, 1e7].map(formatNumber)).toEqual(['0', '1.00e-9', '0.12346', '1.00e+7'])
  expect([plural(1, 'file'), plural(2, 'file')]).toEqual(['1 file', '2 files'])
  expect(
    formatTable([
      ['name', 'n'],
      ['a', '1'],
      ['bb', '22'],
    ]),
  ).toBe('name   n\na      1\nbb    22')
})

const pair = ['--base', BASE, '--post', INSTRUCT]

describe('wrong arguments end with 2', () => {
  it.concurrent.each<[string, string[], RegExp]>([
    ['unknown command', ['graff'], /unknown command 'graff'[\s\S]*Did you mean graft/],
    ['unknown option', ['inspect', BASE, '--tensor'], /unknown option '--tensor'[\s\S]*--tensors/],
    ['no checkpoint', ['inspect'], /missing required argument/],
    ['too many checkpoints', ['inspect', BASE, CPT], /too many arguments/],
    ['no output', ['graft', CPT, ...pair], /required option '-o, --out <dir>'/],
    ['no delta', ['graft', CPT, '-o', 'x'], /either --base and --post, or --delta/],
    ['half a pair', ['graft', CPT, '-o', 'x', '--base', BASE], /either --base and --post, or --delta/],
    ['pair and delta', ['graft', CPT, '-o', 'x', ...pair, '--delta', 'd'], /either/],
    ['--lambda', ['graft', CPT, '-o', 'x', ...pair, '--lambda', 'half'], /--lambda <x>.*Expected a number/],
    [
      '--expert-lambda',
      ['graft', CPT, '-o', 'x', ...pair, '--expert-lambda', '0:1'],
      /pairs such as 0=1,1=0\.8/,
    ],
    [
      '--layer-lambda',
      ['graft', CPT, '-o', 'x', ...pair, '--layer-lambda', '0=1,0=1'],
      /Index 0 is given twice/,
    ],
    [
      '--max-shard-size',
      ['delta', BASE, INSTRUCT, '-o', 'x', '--max-shard-size', '5 apples'],
      /5GB or 512MiB/,
    ],
    ['--memory', ['delta', BASE, INSTRUCT, '-o', 'x', '--memory', '0'], /5GB or 512MiB/],
    ['--threads', ['delta', BASE, INSTRUCT, '-o', 'x', '--threads', '-1'], /whole number/],
    ['--top', ['diff', BASE, INSTRUCT, '--top', 'all'], /whole number/],
    ['no experts', ['upcycle', BASE, '-o', 'x'], /--experts <n> or --languages <list>/],
    ['--experts', ['upcycle', BASE, '-o', 'x', '--experts', '0'], /from 1 to/],
    ['--top-k', ['upcycle', BASE, '-o', 'x', '--experts', '2', '--top-k', 'two'], /whole number/],
    [
      '--target',
      ['upcycle', BASE, '-o', 'x', '--experts', '2', '--target', 'moe'],
      /Allowed choices are auto, mixtral/,
    ],
    [
      '--router',
      ['upcycle', BASE, '-o', 'x', '--experts', '2', '--router', 'zeros'],
      /Allowed choices are xavier/,
    ],
    ['--languages', ['upcycle', BASE, '-o', 'x', '--languages', 'el,,hu'], /el,hu,tr/],
    ['--seed', ['upcycle', BASE, '-o', 'x', '--experts', '2', '--seed', '-1'], /whole number/],
    [
      '--expert-noise',
      ['upcycle', BASE, '-o', 'x', '--experts', '2', '--expert-noise', 'some'],
      /Expected a number/,
    ],
    [
      'half of the sources',
      ['verify', CPT, '--base', BASE, '--post', INSTRUCT],
      /all three: --base, --post and --cpt/,
    ],
    ['only --cpt', ['verify', CPT, '--cpt', CPT], /all three: --base, --post and --cpt/],
  ])('%s', async (_, args, message) => {
    const { code, json, stderr } = await runJson(args)
    expect(code).toBe(2)
    expect(stderr).toMatch(message)
    expect(json.error.code).toBe('bad-arguments')
    expect(json.error.message).toMatch(message.source.includes('[\\s\\S]') ? /unknown/ : message)
    expect(json.error.problems).toEqual([{ code: 'bad-arguments', message: json.error.message }])
  })

  it('without --json stdout stays empty', async () => {
    const { code, stdout, stderr } = await run(['inspect'])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toBe(
      "error: missing required argument 'checkpoint'\n(add --help for the options and an example)\n",
    )
  })

  it('no command shows the help', async () => {
    const { code, stdout, stderr } = await run([])
    expect([code, stdout]).toEqual([2, ''])
    expect(stderr).toMatch(/^Usage: polygraft/)
  })
})

const COMMANDS = ['inspect', 'diff', 'delta', 'upcycle', 'graft', 'run', 'finish', 'verify', 'demo']

describe('help', () => {
  it.concurrent.each(COMMANDS)('%s', async (command) => {
    const { code, stdout, stderr } = await run([command, '--help'])
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toMatch(new RegExp(`^Usage: polygraft ${command} `))
    expect(stdout).toMatch(new RegExp(`\nExamples?:\n( {2}\\$ .*\n)* {2}\\$ polygraft ${command} ?`))
    expect(stdout).toContain('--json')
    const writes = ['delta', 'upcycle', 'graft'].includes(command)
    expect(
      ['--dry-run', '--force', '--max-shard-size'].filter((option) => stdout.includes(option)),
    ).toHaveLength(writes ? 3 : 0)
    // Nothing but an example may be wider than a terminal.
    const [text] = stdout.split('\nExample')
    expect(text!.split('\n').filter((line) => line.length > 80)).toEqual([])
  })

  it('names every command, and the version', async () => {
    const { code, stdout } = await run(['--help'])
    expect(code).toBe(0)
    for (const name of COMMANDS) expect(stdout).toMatch(new RegExp(`^ {2}${name}`, 'm'))
    expect((await run(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\S*\n$/)
  })
})
