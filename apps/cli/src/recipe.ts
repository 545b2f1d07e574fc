import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, join } from 'node:path'
import type { ModelLocation, Recipe } from '@polygraft/recipe'
import { ModelError } from '@polygraft/tensor'
import { localPaths, openCheckpoint } from './open.js'
import { promptReader } from './read-prompts.js'
import { untilCancelled } from './signals.js'
import type { Terminal } from './terminal.js'
import { runJob, type WriteArguments } from './write.js'

/** Reads a recipe of any kind. */
export async function openRecipe(path: string): Promise<Recipe> {
  // Its parser and schemas take a while to load, which other commands need not wait for.
  const { parseRecipe } = await import('@polygraft/recipe')
  return parseRecipe(await readRecipe(path), path)
}

/** Does what the recipe at `path` says. */
export async function runRecipe(
  terminal: Terminal,
  label: string,
  recipe: Recipe,
  path: string,
  args: WriteArguments,
): Promise<void> {
  const built = await build(terminal, recipe, path, args)
  await runJob(
    terminal,
    {
      label,
      inputs: localPaths([path, ...locationsOf(recipe, path)]),
      problems: [],
      warnings: built.warnings,
      build: () => built.checkpoint,
    },
    args,
  )
}

async function readRecipe(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause: unknown) => {
    throw new ModelError(
      { code: 'missing-file', message: 'The recipe cannot be read', file: path },
      { cause },
    )
  })
}

/** A dry run reads no weights; otherwise what the method must see is measured first. */
async function build(terminal: Terminal, recipe: Recipe, path: string, args: WriteArguments) {
  const { buildRecipe, dryMeasuring, engineMeasuring } = await import('@polygraft/recipe')
  const meter = terminal.progress('measure')
  try {
    return await untilCancelled((signal) => {
      const onProgress = ({ bytesDone, bytesTotal }: { bytesDone: number; bytesTotal: number }) =>
        meter.update(bytesDone, bytesTotal)
      const threads = args.threads === undefined ? {} : { threads: args.threads }
      return buildRecipe(recipe, {
        open: (location) => openCheckpoint(locate(location, path)),
        measuring: args.dryRun ? dryMeasuring : engineMeasuring({ signal, onProgress, ...threads }),
        prompts: promptReader(args.dryRun ?? false, args.threads, signal),
        force: args.force ?? false,
      })
    })
  } finally {
    meter.done()
  }
}

function locationsOf({ models }: Recipe, path: string): string[] {
  return [...models.values()].flatMap(({ model, lora }) =>
    [model, ...(lora ? [lora] : [])].map((each) => locate(each, path)),
  )
}

/** Where a recipe's model lies: beside the recipe, or else on the Hub, if it is named as models there are. */
function locate({ path, revision }: ModelLocation, recipe: string): string {
  if (/^(https?:|hf:)/.test(path)) return path
  const local = isAbsolute(path) ? path : join(dirname(recipe), path)
  if (existsSync(local) || !/^\w[\w.-]*\/\w[\w.-]*$/.test(path)) return local
  return revision === undefined ? `hf:${path}` : `hf:${path}@${revision}`
}
