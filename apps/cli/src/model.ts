import { availableParallelism } from 'node:os'
import {
  type AnswerOptions,
  createCpuBackend,
  createGenerator,
  type Generator,
  type Model,
  openModel,
  openTokenizer,
  readEndTokens,
  type TextTokenizer,
} from '@polygraft/model'
import type { Checkpoint } from '@polygraft/tensor'
import { createDecoderBackend, createGpu } from '@polygraft/webgpu'
import { openDawn } from '@polygraft/webgpu/node'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { parseReal, parseWhole } from './arguments.js'

/** A checkpoint that answers. */
export interface RunningModel {
  readonly model: Model
  readonly tokenizer: TextTokenizer
  readonly generator: Generator
  readonly endTokens: readonly number[]
  close(): Promise<void>
}

/** More threads than that wait for one another rather than help. */
const MOST_THREADS = 16
/** Below so many parameters a thread costs more than it brings. */
const THREADED_PARAMETERS = 5e6

/** Where a model computes. */
export type Device = 'cpu' | 'webgpu'

/** Takes a checkpoint into memory. The tokenizer is looked at first, since that is quick. `threads` are those of the CPU. */
export async function startModel(
  checkpoint: Checkpoint,
  threads?: number,
  device: Device = 'cpu',
): Promise<RunningModel> {
  const tokenizer = await openTokenizer(checkpoint)
  const endTokens = await readEndTokens(checkpoint)
  const backend =
    device === 'webgpu'
      ? createDecoderBackend(await createGpu({ gpu: await openDawn() }), { ownsGpu: true })
      : await createCpuBackend({ threads: threads ?? modelThreads(checkpoint) })
  try {
    const model = await openModel(checkpoint, { backend })
    const generator = createGenerator(model, tokenizer)
    return { model, tokenizer, generator, endTokens, close: () => backend.close() }
  } catch (error) {
    await backend.close()
    throw error
  }
}

/** Threads that a model computes on when nothing else is said. */
export function modelThreads({ tensors }: Checkpoint): number {
  let parameters = 0
  for (const { shape } of tensors.values()) parameters += shape.reduce((product, size) => product * size, 1)
  return parameters < THREADED_PARAMETERS ? 1 : Math.min(MOST_THREADS, availableParallelism())
}

/** The options of a command by which answers are drawn. */
export interface SamplingArguments {
  readonly maxNewTokens: number
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly seed: number
  readonly stop?: readonly string[]
}

export function addSamplingOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--max-new-tokens <n>', 'end after so many tokens').argParser(parseWhole(0)).default(256),
    )
    .addOption(
      new Option('--temperature <t>', '0 takes the most probable token').argParser(parseFrom0).default(0),
    )
    .addOption(
      new Option('--top-k <k>', 'draw from the k most probable tokens (0: all)')
        .argParser(parseWhole(0))
        .default(0),
    )
    .addOption(
      new Option('--top-p <p>', 'draw from the most probable tokens that reach p together')
        .argParser(parseShare)
        .default(1),
    )
    .addOption(
      new Option('--min-p <p>', "draw from tokens with at least p times the best one's probability")
        .argParser(parseShare)
        .default(0),
    )
    .addOption(new Option('--seed <n>', 'of the draws').argParser(parseWhole(0)).default(0))
    .option('--stop <text...>', 'end before any of these texts')
}

/** Threads of a model that runs. */
export function modelThreadsOption(): Option {
  return new Option(
    '--threads <n>',
    'threads that compute (default: one for each core; one for small models)',
  ).argParser(parseWhole(1, 64))
}

export function deviceOption(): Option {
  return new Option('--device <device>', 'where to compute; webgpu takes the npm package of that name')
    .choices(['cpu', 'webgpu'])
    .default('cpu')
}

export function answerOptions(
  { maxNewTokens, temperature, topK, topP, minP, seed, stop }: SamplingArguments,
  { endTokens }: RunningModel,
): AnswerOptions {
  const common = { maxNewTokens, temperature, topK, topP, minP, seed, endTokens }
  return stop ? { ...common, stop } : common
}

function parseFrom0(text: string): number {
  const value = parseReal(text)
  if (value < 0) throw new InvalidArgumentError('Expected a number of at least 0.')
  return value
}

function parseShare(text: string): number {
  const value = parseReal(text)
  if (value < 0 || value > 1) throw new InvalidArgumentError('Expected a number from 0 to 1.')
  return value
}
