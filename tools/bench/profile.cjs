// Preloaded (node --require): says at the end, on stderr, in which functions the time of all threads went, idle waiting left out.
const { Session } = require('node:inspector')
const { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } = require('node:fs')
const { tmpdir } = require('node:os')
const { join } = require('node:path')
const { threadId } = require('node:worker_threads')

// Threads inherit the environment of the one that starts them.
process.env.POLYGRAFT_PROFILES ??= mkdtempSync(join(tmpdir(), 'profiles-'))
const folder = process.env.POLYGRAFT_PROFILES
const session = new Session()
let written = 0
session.connect()
session.post('Profiler.enable')
session.post('Profiler.setSamplingInterval', { interval: 500 })
session.post('Profiler.start')

function flush() {
  session.post('Profiler.stop', (_, { profile }) =>
    writeFileSync(join(folder, `${threadId}-${written++}.json`), JSON.stringify(profile)),
  )
}

// A thread that is terminated does not tell: what it has done since the last time is lost.
if (threadId > 0)
  setInterval(() => {
    flush()
    session.post('Profiler.start')
  }, 300).unref()
else
  process.on('exit', () => {
    flush()
    const times = new Map()
    for (const name of readdirSync(folder)) addTimes(name, times)
    rmSync(folder, { recursive: true })
    const total = [...times.values()].reduce((sum, time) => sum + time, 0)
    for (const [key, time] of [...times].sort(([, a], [, b]) => b - a).slice(0, 16))
      console.error(`${((100 * time) / total).toFixed(1).padStart(5)} % ${key}`)
  })

function addTimes(name, times) {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(join(folder, name), 'utf8'))
  const functions = new Map(nodes.map(({ id, callFrame }) => [id, callFrame.functionName || '(anonymous)']))
  for (const [i, id] of samples.entries()) {
    const key = `${name.startsWith('0-') ? 'main  ' : 'worker'} ${functions.get(id)}`
    if (!key.endsWith('(idle)')) times.set(key, (times.get(key) ?? 0) + timeDeltas[i])
  }
}
