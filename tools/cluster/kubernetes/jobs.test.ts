// The Jobs as a cluster would read them; the commands of their containers are run here.
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseAllDocuments } from 'yaml'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))

interface Job {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: { readonly name: string; readonly labels: { readonly step: string } }
  readonly spec: {
    readonly completionMode?: string
    readonly completions?: number
    readonly parallelism?: number
    readonly backoffLimit: number
    readonly template: { readonly spec: Pod }
  }
}

interface Pod {
  readonly restartPolicy: string
  readonly containers: readonly Container[]
  readonly volumes: readonly { readonly name: string }[]
}

interface Container {
  readonly image: string
  readonly workingDir: string
  readonly command: readonly string[]
  readonly env?: readonly { readonly name: string; readonly value: unknown }[]
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[]
}

const documents = parseAllDocuments(readFileSync(at('jobs.yaml'), 'utf8'), { strict: true, uniqueKeys: true })
const jobs = documents.map((document): Job => {
  expect(document.errors).toEqual([])
  return document.toJS() as Job
})
const tasks = jobs[1]!
const container = (job: Job) => job.spec.template.spec.containers[0]!

let dir = ''
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'polygraft-kubernetes-'))
  mkdirSync(join(dir, 'bin'))
  mkdirSync(join(dir, 'models'))
  symlinkSync(at('../../../apps/cli/bin/polygraft.js'), join(dir, 'bin/polygraft'))
  for (const [name, folder] of [
    ['base', 'base'],
    ['instruct', 'instruct'],
    ['moe-cpt', 'cpt'],
  ] as const)
    symlinkSync(at(`../../trio/checkpoints/${folder}`), join(dir, 'models', name))
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

it('are three, each for its step, on one volume', () => {
  expect(jobs.map(({ metadata }) => metadata.labels.step)).toEqual(['plan', 'tasks', 'finish'])
  for (const { apiVersion, kind, metadata, spec } of jobs) {
    expect([apiVersion, kind, metadata.name]).toEqual([
      'batch/v1',
      'Job',
      `polygraft-${metadata.labels.step}`,
    ])
    expect(spec.backoffLimit).toBeGreaterThan(0)
    const { restartPolicy, containers, volumes } = spec.template.spec
    expect(restartPolicy).toBe('Never')
    expect(containers.length).toBe(1)
    const { image, workingDir, volumeMounts } = containers[0]!
    expect([image, workingDir]).toEqual(['polygraft', '/models'])
    expect(volumeMounts).toEqual([{ name: 'models', mountPath: workingDir }])
    expect(volumes).toEqual([{ name: 'models', persistentVolumeClaim: { claimName: 'models' } }])
  }
})

it('index the tasks, as many as --task is told', () => {
  const { completionMode, completions, parallelism } = tasks.spec
  expect([completionMode, parallelism]).toEqual(['Indexed', completions])
  // Kubernetes takes text only.
  expect(container(tasks).env).toEqual([{ name: 'TASKS', value: String(completions) }])
  expect(container(tasks).command.join(' ')).toContain('--task "$((JOB_COMPLETION_INDEX + 1))/$TASKS"')
  for (const job of [jobs[0]!, jobs[2]!]) expect(job.spec.completionMode).toBeUndefined()
})

it('plan, run and finish what a direct run writes', () => {
  const direct = container(jobs[0]!).command.slice(0, -2)
  expect(container(jobs[0]!).command.slice(-2)).toEqual(['--plan', 'plan.json'])
  start(direct.map((word) => (word === 'out' ? 'direct' : word)))
  start(container(jobs[0]!).command)
  const count = tasks.spec.completions!
  const lines = Array.from({ length: count }, (_, index) =>
    start(container(tasks).command, { TASKS: String(count), JOB_COMPLETION_INDEX: String(index) }),
  )
  expect(lines).toEqual(
    Array.from({ length: count }, (_, i) => expect.stringContaining(`task ${i + 1}/${count}: `)),
  )
  start(container(jobs[2]!).command)
  expect(contents('out')).toEqual(contents('direct'))
})

function contents(folder: string): ReadonlyMap<string, string> {
  const at = join(dir, 'models', folder)
  return new Map(readdirSync(at).map((file) => [file, readFileSync(join(at, file), 'latin1')]))
}

function start([file, ...args]: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const path = [join(dir, 'bin'), process.env.PATH].join(delimiter)
  return execFileSync(file!, args, {
    cwd: join(dir, 'models'),
    env: { ...process.env, NO_COLOR: '1', PATH: path, ...env },
    encoding: 'utf8',
  })
}
