import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from './measure.js'

const FOLDER = fileURLToPath(new URL('mergekit/', import.meta.url))
const PROGRAM = join(FOLDER, '.venv/bin/mergekit-yaml')
const REQUIREMENTS = join(FOLDER, 'requirements.txt')
const OFFLINE = { HF_HUB_OFFLINE: '1', TRANSFORMERS_VERBOSITY: 'error', PYTHONWARNINGS: 'ignore' }

export function buildMergekit(): void {
  execFileSync('bash', [join(FOLDER, 'environment.sh')], { stdio: 'inherit' })
}

/** Whether its environment is complete and of the pinned versions. */
export function hasMergekit(): boolean {
  const built = join(FOLDER, '.venv/built-from.txt')
  return existsSync(built) && readFileSync(built, 'utf8') === readFileSync(REQUIREMENTS, 'utf8')
}

/** The pinned versions that matter: `mergekit 0.1.5, torch 2.13.0`. */
export function mergekitVersions(): string {
  const pins = [...readFileSync(REQUIREMENTS, 'utf8').matchAll(/^(mergekit|torch|transformers)==(\S+)$/gm)]
  return pins.map(([, name, version]) => `${name} ${version}`).join(', ')
}

/** Runs a configuration; JSON is YAML. Without tokenizers, which the data does not have. */
export function mergekit(config: object, out: string, threads: number, scratch: string): Command {
  const file = join(scratch, 'mergekit.yaml')
  writeFileSync(file, JSON.stringify(config))
  const threading = ['--num-threads', `${threads}`]
  return {
    argv: [PROGRAM, file, out, '--no-copy-tokenizer', '--no-write-model-card', ...threading, '--quiet'],
    env: OFFLINE,
  }
}

/** Its start alone. */
export function mergekitStart(): Command {
  return { argv: [PROGRAM, '--help'], env: OFFLINE }
}
