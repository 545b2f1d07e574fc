import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'

/** Makes the folder `dir` a file system of so many KiB, if this process may mount one. @returns Unmounts it. */
export function mountSmall(dir: string, kib: number): (() => void) | undefined {
  mkdirSync(dir, { recursive: true })
  const system = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: 'ignore' })
  try {
    system('mount', '-t', 'tmpfs', '-o', `size=${kib}k`, 'tmpfs', dir)
  } catch {
    return undefined
  }
  return () => void system('umount', '-l', dir)
}

/** Why a test that needs one is skipped. */
export const NO_MOUNT = 'mounting a small disk takes more rights than these'
