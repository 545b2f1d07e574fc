import { Command, CommanderError } from 'commander'
import { version } from '../package.json'
import { addDelta } from './commands/delta.js'
import { addDemo } from './commands/demo.js'
import { addDiff } from './commands/diff.js'
import { addGraft } from './commands/graft.js'
import { addInspect } from './commands/inspect.js'
import { addUpcycle } from './commands/upcycle.js'
import { addVerify } from './commands/verify.js'
import { showError } from './terminal.js'

const FAILED = 1
const BAD_ARGUMENTS = 2

const program = new Command('polygraft')
  .description(
    'Surgery on language-model checkpoints: teach an aligned model new languages without aligning it again.',
  )
  .version(version)
  .showSuggestionAfterError()
  .showHelpAfterError('(add --help for the options and an example)')
  .exitOverride()

for (const add of [addInspect, addDiff, addDelta, addUpcycle, addGraft, addVerify, addDemo]) add(program)
for (const command of program.commands) command.copyInheritedSettings(program)

try {
  await program.parseAsync()
} catch (error) {
  // Commander has already printed its own message; --help and --version come here with code 0.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : BAD_ARGUMENTS
  else {
    showError(error, process.argv.includes('--json'))
    process.exitCode = FAILED
  }
}
