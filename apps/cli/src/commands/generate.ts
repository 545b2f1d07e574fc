import { readVocabularies } from '@polygraft/delta'
import { graft } from '@polygraft/graft'
import type { Answer } from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import type { Command } from 'commander'
import {
  addSamplingOptions,
  answerOptions,
  type Device,
  deviceOption,
  modelThreadsOption,
  type SamplingArguments,
  startModel,
} from '../model.js'
import { CHECKPOINT_HELP, openCheckpoint, openCheckpoints } from '../open.js'
import { untilCancelled } from '../signals.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

interface Arguments extends SamplingArguments {
  readonly prompt: string
  readonly chat?: boolean
  readonly base?: string
  readonly post?: string
  readonly threads?: number
  readonly device: Device
  readonly json?: boolean
}

/** `polygraft generate <checkpoint>` */
export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .description('Continue a prompt with a checkpoint, on the CPU or a GPU.')
    .argument('<checkpoint>', CHECKPOINT_HELP)
    .requiredOption('--prompt <text>', 'what to continue')
    .option('--chat', "take the prompt as a user's message, by the checkpoint's chat template")
    .option(
      '--base <checkpoint>',
      'with --post: try the graft of post - base onto the checkpoint, which is not written',
    )
    .option('--post <checkpoint>', 'the post-trained model, whose tokenizer and chat template then count')
  addSamplingOptions(command).addOption(modelThreadsOption()).addOption(deviceOption())
  addExample(
    addJson(command),
    'polygraft generate ./grafted --chat --prompt "Πού είναι η θάλασσα;" --max-new-tokens 64',
    'polygraft generate ./moe-cpt --base ./base --post ./instruct --chat --prompt "Πού είναι η θάλασσα;"',
    'polygraft generate ./moe --prompt "Once upon" --temperature 0.8 --top-p 0.95 --seed 7 --json',
  )
  command.action(run)
}

async function run(location: string, args: Arguments, command: Command): Promise<void> {
  const json = args.json ?? false
  const { base, post } = args
  if ((base === undefined) !== (post === undefined))
    command.error('error: give --base and --post together, or neither', { exitCode: 2 })
  const checkpoint =
    base === undefined || post === undefined
      ? await openCheckpoint(location)
      : await graftOf(location, base, post)
  const running = await startModel(checkpoint, args.threads, args.device)
  const { tokenizer, generator } = running
  try {
    const prompt = args.chat
      ? tokenizer.encodeChat([{ role: 'user', content: args.prompt }])
      : tokenizer.encode(args.prompt)
    const answer = await untilCancelled(async (signal) => {
      const pieces = generator.stream(prompt, { ...answerOptions(args, running), signal })
      return show(pieces, json)
    })
    const { promptTokens, tokens, text, finishReason } = answer
    // The pieces are on the screen already; an end of line is missing.
    createTerminal(json).result({ promptTokens, tokens, text, finishReason }, () => '')
  } finally {
    await running.close()
  }
}

/** A graft that stays symbolic: its tensors are evaluated as the model takes them. */
async function graftOf(location: string, baseLocation: string, postLocation: string): Promise<Checkpoint> {
  const [cpt, base, post] = await openCheckpoints(location, baseLocation, postLocation)
  return graft({ base, post, vocabularies: await readVocabularies({ base, post, cpt }) })(cpt)
}

/** Text as it comes, for people. */
async function show(pieces: AsyncGenerator<string, Answer>, json: boolean): Promise<Answer> {
  for (;;) {
    const step = await pieces.next()
    if (step.done) return step.value
    if (!json) process.stdout.write(step.value)
  }
}
