import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pnpm } from '../bootstrap/pnpm.mjs'
import { linkExternal } from './link-external.js'

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))))

/** A package as a registry would hand it out. */
export interface Packed {
  readonly name: string
  /** The tarball, and the folder that it was unpacked into. */
  readonly tarball: string
  readonly dir: string
  /** Its package.json after `publishConfig` was applied. */
  readonly manifest: { readonly exports?: Readonly<Record<string, unknown>>; readonly dependencies?: object }
}

/**
 * Packs everything that is published, and installs it into the `node_modules` of a new temporary folder, without a network:
 * what the packages depend on from outside is linked from where it already is. The caller removes the folder.
 * @throws Error with pnpm's log when packing fails.
 */
export async function installPacked(): Promise<{ folder: string; packages: readonly Packed[] }> {
  const folder = mkdtempSync(join(tmpdir(), 'polygraft-packed-'))
  const filters = ['--filter', './packages/*', '--filter', './apps/cli']
  const args = ['-r', ...filters, 'exec', 'pnpm', 'pack', '--pack-destination', folder]
  const { code, log } = await pnpm(args, { cwd: ROOT, onOutput: () => {} })
  if (code !== 0) throw new Error(log)
  const packages = readdirSync(folder)
    .filter((file) => file.endsWith('.tgz'))
    .map((file) => unpack(join(folder, file), folder))
  linkExternal(ROOT, join(folder, 'node_modules'))
  return { folder, packages }
}

function unpack(tarball: string, folder: string): Packed {
  const text = execFileSync('tar', ['-xzOf', tarball, 'package/package.json'], { encoding: 'utf8' })
  const manifest = JSON.parse(text)
  const dir = join(folder, 'node_modules', manifest.name)
  mkdirSync(dir, { recursive: true })
  execFileSync('tar', ['-xzf', tarball, '-C', dir, '--strip-components=1'])
  return {
    name: manifest.name,
    tarball,
    dir,
    manifest: JSON.parse(readFileSync(join(dir, 'package.json'), 'utf8')),
  }
}
