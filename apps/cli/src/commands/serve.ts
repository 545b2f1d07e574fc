import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { basename, resolve } from 'node:path'
import { ModelError } from '@polygraft/tensor'
import { type Command, Option } from 'commander'
import { parseWhole } from '../arguments.js'
import { type Device, deviceOption, modelThreadsOption, startModel } from '../model.js'
import { CHECKPOINT_HELP, openCheckpoint } from '../open.js'
import { modelAnswerer } from '../serve/model-answerer.js'
import { createChatServer } from '../serve/server.js'
import { untilCancelled } from '../signals.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

/** The machine's own programs alone: nothing asks who they are. */
const LOOPBACK = '127.0.0.1'

interface Arguments {
  readonly port: number
  readonly threads?: number
  readonly device: Device
  readonly json?: boolean
}

/** `polygraft serve <checkpoint>` */
export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .description('Answer chat clients of this machine by the OpenAI protocol, until Ctrl-C.')
    .argument('<checkpoint>', CHECKPOINT_HELP)
    .addOption(
      new Option('--port <n>', 'of 127.0.0.1; 0 takes a free one')
        .argParser(parseWhole(0, 65535))
        .default(8080),
    )
    .addOption(modelThreadsOption())
    .addOption(deviceOption())
  addExample(addJson(command), 'polygraft serve ./grafted --port 8080')
  command.action(run)
}

async function run(location: string, args: Arguments): Promise<void> {
  const running = await startModel(await openCheckpoint(location), args.threads, args.device)
  const id = basename(resolve(location))
  const server = createChatServer(modelAnswerer(id, running))
  try {
    server.listen(args.port, LOOPBACK)
    await once(server, 'listening').catch((cause) => {
      const message = `Port ${args.port} cannot be used`
      throw new ModelError(
        { code: 'port', message, received: String(cause), next: 'Give another --port.' },
        { cause },
      )
    })
    const url = `http://${LOOPBACK}:${(server.address() as AddressInfo).port}/v1`
    createTerminal(args.json ?? false).result({ model: id, url }, () => `${id} answers at ${url}`)
    await untilCancelled((signal) => once(signal, 'abort'))
  } finally {
    server.close()
    server.closeAllConnections()
    await running.close()
  }
}
