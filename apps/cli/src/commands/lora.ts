import type { Command } from 'commander'
import { addLoraApply } from './lora-apply.js'
import { addLoraExtract } from './lora-extract.js'

/** `polygraft lora extract | apply` */
export function addLora(program: Command): void {
  const command = program
    .command('lora')
    .description('Make a LoRA adapter of a delta, or add one to its base.')
  addLoraExtract(command)
  addLoraApply(command)
  for (const each of command.commands) each.copyInheritedSettings(command)
}
