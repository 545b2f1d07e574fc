import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { buildState, installState, readStamp, workspaces, writeStamp } from './stamp.mjs'

let root = ''
const write = (path: string, text: string) => writeFileSync(join(root, path), text)

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'polygraft-stamp-'))
  for (const dir of ['packages/a/src', 'packages/a/dist']) mkdirSync(join(root, dir), { recursive: true })
  write('packages/a/package.json', '{ "name": "a", "scripts": { "build": "tsup" } }')
  write('packages/a/src/index.ts', '1')
  write('packages/a/dist/index.js', '1')
})
afterEach(() => rmSync(root, { recursive: true }))

it('finds the packages', () => {
  expect(workspaces(root).map(({ name, dir }) => [name, dir])).toEqual([['a', 'packages/a']])
})

it('builds again after a change to a source or to what was built, but not to a test', () => {
  const before = buildState(root)
  write('packages/a/src/index.test.ts', 'test')
  expect(buildState(root)).toBe(before)
  write('packages/a/src/index.ts', '2')
  const changed = buildState(root)
  expect(changed).not.toBe(before)
  write('packages/a/dist/index.js', 'something longer')
  expect(buildState(root)).not.toBe(changed)
})

it('has no build while one is missing', () => {
  rmSync(join(root, 'packages/a/dist'), { recursive: true })
  expect(buildState(root)).toBeUndefined()
})

it('installs again after a change to a manifest or to the lockfile, but not to a source', () => {
  const before = installState(root)
  write('packages/a/src/index.ts', '2')
  expect(installState(root)).toBe(before)
  write('pnpm-lock.yaml', 'changed')
  expect(installState(root)).not.toBe(before)
})

it('remembers a stamp', () => {
  expect(readStamp(root, 'install')).toBeUndefined()
  writeStamp(root, 'install', 'state')
  expect(readStamp(root, 'install')).toBe('state')
})
