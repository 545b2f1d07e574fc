import type { Command } from 'commander'
import { openRecipe, runRecipe } from '../recipe.js'
import { createTerminal } from '../terminal.js'
import type { WriteArguments } from '../write.js'
import { addExample, addJson, addWriteOptions } from './_options.js'

interface Arguments extends WriteArguments {
  readonly json?: boolean
}

/** `polygraft merge <recipe.yml> -o <dir>` */
export function addMerge(program: Command): void {
  const command = program
    .command('merge')
    .description(
      'Do what a recipe says: ours, of several steps, or one of mergekit. Paths in it are relative to its own folder.',
    )
    .argument(
      '<recipe>',
      "a YAML file: our own form (steps: ...) mergekit's (merge_method: ...), or mergekit-moe's (experts: ...)",
    )
  addExample(
    addJson(addWriteOptions(command)),
    'polygraft merge ties.yml -o ./merged',
    'polygraft merge pipeline.yml -o ./moe-instruct --dry-run',
  )
  command.action(run)
}

async function run(path: string, args: Arguments): Promise<void> {
  const terminal = createTerminal(args.json ?? false)
  await runRecipe(terminal, 'merge', await openRecipe(path), path, args)
}
