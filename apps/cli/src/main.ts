import { Command, CommanderError } from 'commander'
import { version } from '../package.json'
import { addDelta } from './commands/delta.js'
import { addDemo } from './commands/demo.js'
import { addDiff } from './commands/diff.js'
import { addEval } from './commands/eval.js'
import { addExpand } from './commands/expand.js'
import { addExportCpt } from './commands/export-cpt.js'
import { addFinish } from './commands/finish.js'
import { addGenerate } from './commands/generate.js'
import { addGraft } from './commands/graft.js'
import { addInspect } from './commands/inspect.js'
import { addLora } from './commands/lora.js'
import { addMerge } from './commands/merge.js'
import { addRoute } from './commands/route.js'
import { addRun } from './commands/run.js'
import { addServe } from './commands/serve.js'
import { addTrain } from './commands/train.js'
import { addUpcycle } from './commands/upcycle.js'
import { addVerify } from './commands/verify.js'
import { endQuietlyWithReader, showError, showJsonError } from './terminal.js'

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

const commands = [
  addInspect,
  addDiff,
  addDelta,
  addUpcycle,
  addExpand,
  addGraft,
  addMerge,
  addLora,
  addTrain,
  addExportCpt,
  addRun,
  addFinish,
  addVerify,
  addGenerate,
  addEval,
  addRoute,
  addServe,
  addDemo,
]
for (const add of commands) add(program)
for (const command of program.commands) command.copyInheritedSettings(program)

endQuietlyWithReader()
const json = process.argv.includes('--json')
try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = afterParsing(error)
  else {
    showError(error, json)
    process.exitCode = FAILED
  }
}

/** Commander has printed its message already; --help and --version come here too, with code 0. */
function afterParsing({ exitCode, message }: CommanderError): number {
  if (exitCode === 0) return 0
  const text = message.replace(/^error: /, '')
  if (json) showJsonError([{ code: 'bad-arguments', message: text }], text)
  return BAD_ARGUMENTS
}
