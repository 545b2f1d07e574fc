import { describe, expect, it } from 'vitest'
import { findCycles } from './cycles.js'
import { drawDiagram, putDiagram } from './diagram.js'
import { layerProblems } from './rules.js'
import type { Package } from './scan.js'

const pkg = (short: string, more: Partial<Package> = {}): Package => ({
  name: `@polygraft/${short}`,
  dir: `packages/${short}`,
  dependencies: [],
  devDependencies: [],
  entries: [`@polygraft/${short}`],
  files: [],
  ...more,
})
const file = (path: string, ...imports: string[]) => ({ path, imports })

describe('layerProblems', () => {
  it('finds nothing in packages that keep the rules', () => {
    const tensor = pkg('tensor', { files: [file('src/index.ts', './a.js'), file('src/a.ts')] })
    const io = pkg('tensor-io', {
      dependencies: ['@polygraft/tensor'],
      entries: ['@polygraft/tensor-io', '@polygraft/tensor-io/node'],
      files: [file('src/index.ts', '@polygraft/tensor'), file('src/node/file.ts', 'node:fs')],
    })
    const cli: Package = {
      ...pkg('cli'),
      name: 'polygraft',
      devDependencies: ['@polygraft/tensor-io'],
      files: [file('src/main.ts', '@polygraft/tensor-io/node', 'node:process', 'commander')],
    }
    expect(layerProblems([tensor, io, cli])).toEqual([])
  })

  const a = file('src/a.ts')
  const cases: readonly [what: string, packages: readonly Package[], problem: string][] = [
    ['an upward dependency', [pkg('tensor', { dependencies: ['@polygraft/delta'] })], 'not below it'],
    [
      'a dependency on its own layer',
      [pkg('graft', { dependencies: ['@polygraft/upcycle'] })],
      'not below it',
    ],
    ['a package without a layer', [pkg('helpers')], 'has no layer'],
    ['an outside dependency', [pkg('delta', { dependencies: ['lodash'] })], 'no dependency from outside'],
    [
      'an undeclared import',
      [pkg('delta', { files: [file('src/a.ts', '@polygraft/tensor')] }), pkg('tensor')],
      'not among its dependencies',
    ],
    [
      'a development dependency outside of tests',
      [
        pkg('delta', {
          devDependencies: ['@polygraft/graft'],
          files: [file('src/a.ts', '@polygraft/graft')],
        }),
      ],
      'not among its dependencies',
    ],
    [
      'a path that is not exported',
      [
        pkg('delta', {
          dependencies: ['@polygraft/tensor'],
          files: [file('src/a.ts', '@polygraft/tensor/src/a')],
        }),
        pkg('tensor'),
      ],
      'exports @polygraft/tensor',
    ],
    [
      'an import of the own barrel',
      [pkg('delta', { files: [file('src/a.ts', './index.js'), file('src/index.ts')] })],
      'its own index.ts',
    ],
    [
      'an import of the own name',
      [pkg('delta', { files: [file('src/a.ts', '@polygraft/delta')] })],
      'itself by name',
    ],
    ['an import without .js', [pkg('delta', { files: [file('src/b.ts', './a'), a] })], 'end in .js'],
    [
      'an import that leaves its package',
      [pkg('delta', { files: [file('src/a.ts', '../../tensor/src/a.js')] })],
      'leaves its package',
    ],
    ['the platform', [pkg('delta', { files: [file('src/a.ts', 'node:fs')] })], 'touch the platform'],
    [
      'the platform outside of src/node',
      [pkg('tensor-io', { files: [file('src/a.ts', 'node:fs')] })],
      'touch the platform',
    ],
    [
      'files in a circle',
      [pkg('delta', { files: [file('src/a.ts', './b.js'), file('src/b.ts', './a.js')] })],
      'src/a.ts -> src/b.ts -> src/a.ts',
    ],
    [
      'packages in a circle through tests',
      [
        pkg('delta', { devDependencies: ['@polygraft/graft'] }),
        pkg('graft', { dependencies: ['@polygraft/delta'] }),
      ],
      'depend on each other',
    ],
  ]
  it.each(cases)('reports %s', (_, packages, problem) => {
    const problems = layerProblems(packages)
    expect(problems).toHaveLength(1)
    expect(problems[0]).toContain(problem)
  })

  it('lets tests import development dependencies, their own package and the platform', () => {
    const imports = ['@polygraft/tensor', '@polygraft/delta', 'node:fs', './index.js']
    const files = [file('src/a.test.ts', ...imports), file('src/index.ts')]
    const delta = pkg('delta', { devDependencies: ['@polygraft/tensor'], files })
    expect(layerProblems([delta, pkg('tensor')])).toEqual([])
  })
})

describe('findCycles', () => {
  it('finds a node that leads to itself, and nothing in a diamond', () => {
    expect(findCycles(new Map([['a', ['a']]]))).toEqual([['a', 'a']])
    const diamond = new Map([
      ['a', ['b', 'c']],
      ['b', ['d']],
      ['c', ['d']],
      ['d', []],
    ])
    expect(findCycles(diamond)).toEqual([])
  })
})

describe('the diagram', () => {
  it('has a row for each layer and an edge for each dependency, and stays put when it is put in again', () => {
    const diagram = drawDiagram([pkg('tensor'), pkg('delta', { dependencies: ['@polygraft/tensor'] })])
    expect(diagram).toContain('subgraph L2["layer 2"]\n    delta\n  end')
    expect(diagram).toContain('delta --> tensor')
    const document =
      'a\n<!-- layers:begin (written by npm run check -- --fix) -->\nold\n<!-- layers:end -->\nb\n'
    const once = putDiagram(document, diagram)!
    expect(once).toContain(diagram)
    expect(putDiagram(once, diagram)).toBe(once)
    expect(putDiagram('no marks', diagram)).toBeUndefined()
  })
})
