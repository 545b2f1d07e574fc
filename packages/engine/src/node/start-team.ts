import type { Rendezvous } from '../_rendezvous.js'
import { startThread } from './start-thread.js'
import type { TeamInput } from './team-thread.js'
import { readyThread, type TeamWatchInput } from './team-watch.js'

/** Starts the threads of a team; resolves when all are ready, with what ends them. */
export async function startTeam(
  threads: readonly TeamInput[],
  together: Pick<Rendezvous, 'fail' | 'dissolve'>,
): Promise<() => Promise<void>> {
  const watch: TeamWatchInput = { role: 'team-watch', threads }
  const watcher = startThread(watch)
  const end = async () => {
    together.dissolve()
    await watcher.terminate()
  }
  try {
    await readyThread(watcher)
  } catch (error) {
    await end()
    throw error
  }
  // A forgotten team does not keep the process alive.
  watcher.unref()
  watcher.once('exit', together.fail)
  return end
}
