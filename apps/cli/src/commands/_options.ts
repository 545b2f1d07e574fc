import { DEFAULT_MAX_SHARD_BYTES, DEFAULT_MEMORY_BYTES } from '@polygraft/engine'
import { type Command, Option } from 'commander'
import { parseAllowed, parseBytes, parseWhole } from '../arguments.js'
import { nonFiniteOption } from '../non-finite.js'

/** Adds what every writing command takes. */
export function addWriteOptions(command: Command): Command {
  return command
    .requiredOption('-o, --out <dir>', 'folder to write; it appears only when it is whole')
    .addOption(
      new Option('--max-shard-size <size>', 'start a new file before this size')
        .argParser(parseBytes)
        .default(DEFAULT_MAX_SHARD_BYTES, '5GB'),
    )
    .addOption(
      new Option('--memory <size>', 'bound on memory')
        .argParser(parseBytes)
        .default(DEFAULT_MEMORY_BYTES, '512MiB'),
    )
    .addOption(threadsOption())
    .addOption(nonFiniteOption())
    .option('--force', 'replace an existing output, and go on where a guard would refuse')
    .option('--plan <file>', 'save the plan there in place of running it; see `polygraft run` and `finish`')
    .option('--dry-run', 'say what would be read and written, and every problem; write nothing')
}

/** `--threads`, for commands that go over the weights. */
export function threadsOption(): Option {
  const help =
    'threads that compute (default: one for each core as memory allows, none for small checkpoints)'
  return new Option('--threads <n>', help).argParser(parseWhole(0))
}

/** `--allow`, for commands that must find a place for every tensor of their inputs. */
export function allowOption(): Option {
  const help =
    'leave out input tensors whose names hold this (* is anything), and say why; repeat it for more'
  return new Option('--allow <tensors=reason>', help).argParser(parseAllowed)
}

/** `--json`, which every command has. */
export function addJson(command: Command): Command {
  return command.option('--json', 'print one JSON object on stdout and nothing else there')
}

/** An example at the end of a command's help. */
export function addExample(command: Command, ...lines: readonly string[]): Command {
  return command.addHelpText(
    'after',
    `\nExample${lines.length > 1 ? 's' : ''}:\n${lines.map((line) => `  $ ${line}`).join('\n')}\n`,
  )
}
