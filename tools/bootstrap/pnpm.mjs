import { spawn } from 'node:child_process'

/** The one version that the lockfile is read with. Also in the root package.json, as `packageManager`. */
export const PNPM = 'pnpm@12.21.0'

/**
 * Runs `pnpm <args>` through npx, so that nothing has to be installed by hand; whatever it starts finds pnpm on its PATH.
 * @param {readonly string[]} args
 * @param {{ cwd: string, onOutput?: (text: string) => void }} options without `onOutput` the output goes to the terminal
 * @returns {Promise<{ code: number, log: string }>} exit code, and stdout and stderr as they came
 */
export function pnpm(args, { cwd, onOutput }) {
  return new Promise((resolve) => {
    const child = spawn('npx', ['-y', PNPM, ...args], {
      cwd,
      env: { ...process.env, ...QUIET, ...(onOutput && PLAIN) },
      stdio: onOutput ? ['ignore', 'pipe', 'pipe'] : 'inherit',
      shell: process.platform === 'win32', // npx is a .cmd file there
    })
    let log = ''
    const take = (/** @type {Buffer} */ chunk) => {
      log += chunk
      onOutput?.(String(chunk))
    }
    child.stdout?.on('data', take)
    child.stderr?.on('data', take)
    child.on('error', (error) => resolve({ code: 1, log: `${log}${error.message}\n` }))
    child.on('close', (code) => resolve({ code: code ?? 1, log }))
  })
}

// A captured log is shown as text.
const PLAIN = { NO_COLOR: '1', FORCE_COLOR: undefined }

// CI: no prompts. The rest: no updates looked for, nothing sent.
const QUIET = {
  CI: 'true',
  npm_config_update_notifier: 'false',
  npm_config_loglevel: 'error',
  TURBO_TELEMETRY_DISABLED: '1',
  TURBO_NO_UPDATE_NOTIFIER: '1',
  DO_NOT_TRACK: '1',
}
