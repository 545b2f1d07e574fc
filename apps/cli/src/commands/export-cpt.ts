import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { ModelError, throwIfAny } from '@polygraft/tensor'
import { createFolder, outputProblems } from '@polygraft/tensor-io/node'
import { decoderSpec } from '@polygraft/train'
import type { Command } from 'commander'
import { CHECKPOINT_HELP, localPaths, openCheckpoint } from '../open.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

/** Copied beside the built program from tools/export-cpt. */
const SCRIPT = new URL('./export-cpt/train_moe.py', import.meta.url)

/** Parameters as transformers 5 names them in memory. */
const ROUTERS = '.*\\.(mlp|block_sparse_moe)\\.gate\\.weight'
const EXPERTS = '.*\\.experts\\.(gate_up_proj|down_proj)'

/** What each stage trains, with the losses of the method. Expert 0 is held by the script, since it lies in one tensor with the others. */
const STAGES = {
  cpt: {
    train: [ROUTERS, EXPERTS],
    rate: 5e-5,
    weight_decay: 0,
    losses: { balance: 0.01, z: 0, lpr: 0 },
  },
  review: { train: [ROUTERS], rate: 5e-4, weight_decay: 0, losses: { balance: 0, z: 0, lpr: 0.1 } },
}

const DEEPSPEED = {
  zero_optimization: { stage: 2, overlap_comm: true, contiguous_gradients: true, reduce_scatter: true },
  bf16: { enabled: true },
  gradient_clipping: 1.0,
  train_micro_batch_size_per_gpu: 'auto',
  gradient_accumulation_steps: 'auto',
}

/** `polygraft export-cpt <moe> -o <dir>` */
export function addExportCpt(program: Command): void {
  const command = program
    .command('export-cpt')
    .description(
      'Write what PyTorch needs to pre-train the experts and to review the routers of a large mixture.',
    )
    .argument('<moe>', CHECKPOINT_HELP)
    .requiredOption('-o, --out <dir>', 'folder to write')
    .option('--force', 'replace an existing output')
  addExample(addJson(command), 'polygraft export-cpt ./moe -o ./recipe')
  command.action(run)
}

async function run(
  location: string,
  { out, force = false, json = false }: { out: string; force?: boolean; json?: boolean },
): Promise<void> {
  const terminal = createTerminal(json)
  throwIfAny(await outputProblems(out, { force, inputs: localPaths([location]) }))
  const { config, provenance } = await openCheckpoint(location)
  const { numExperts, layers } = decoderSpec(config)
  if (!layers.some(({ router }) => router))
    throw new ModelError({
      code: 'not-a-mixture',
      message: 'The checkpoint has no experts to train',
      received: location,
      next: 'Make a mixture of it with polygraft upcycle.',
    })
  const added = (provenance.experts ?? []).slice(1)
  const languages = added.length > 0 ? [...new Set(added)] : ['el']
  const files = {
    'train_moe.py': await readFile(fileURLToPath(SCRIPT), 'utf8'),
    'stages.json': `${JSON.stringify(STAGES, null, 2)}\n`,
    'deepspeed.json': `${JSON.stringify(DEEPSPEED, null, 2)}\n`,
    'deepspeed.yaml': accelerateConfig('DEEPSPEED', [
      'deepspeed_config:',
      '  deepspeed_config_file: deepspeed.json',
      '  zero3_init_flag: false',
    ]),
    'fsdp.yaml': accelerateConfig('FSDP', [
      'mixed_precision: bf16',
      'fsdp_config:',
      '  fsdp_version: 2',
      '  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP',
      '  fsdp_reshard_after_forward: true',
      '  fsdp_state_dict_type: FULL_STATE_DICT',
      '  fsdp_cpu_ram_efficient_loading: false',
    ]),
    'launch.sh': launch(location, languages),
    'slurm.sh': slurm(),
  }
  const folder = await createFolder(out, { force })
  try {
    for (const [name, text] of Object.entries(files)) await folder.writeFile(name, text)
    await folder.publish()
  } catch (error) {
    await folder.discard()
    throw error
  }
  terminal.result({ out, files: Object.keys(files), numExperts, languages }, () =>
    [
      `wrote ${out}: ${Object.keys(files).join(', ')}`,
      `next: put text of ${languages.join(', ')} beside launch.sh, then bash launch.sh`,
    ].join('\n'),
  )
}

function accelerateConfig(type: string, rest: readonly string[]): string {
  const head = [
    'compute_environment: LOCAL_MACHINE',
    `distributed_type: ${type}`,
    'num_machines: 1',
    'num_processes: 8',
  ]
  return `${[...head, ...rest].join('\n')}\n`
}

function launch(model: string, languages: readonly string[]): string {
  const data = languages.map((language) => `--data ${language}=${language}.jsonl`).join(' ')
  return `#!/usr/bin/env bash
# Both stages on one node. MODEL, CONFIG (fsdp.yaml or deepspeed.yaml), STEPS and REVIEW_STEPS may be set from outside.
set -euo pipefail
cd "$(dirname "$0")"
model=\${MODEL:-${model}} config=\${CONFIG:-fsdp.yaml}
accelerate launch --config_file "$config" \${LAUNCH:-} train_moe.py cpt --model "$model" --out cpt-1 --steps "\${STEPS:-20000}" ${data}
accelerate launch --config_file "$config" \${LAUNCH:-} train_moe.py review --model cpt-1 --out cpt --steps "\${REVIEW_STEPS:-500}" --original en --data en=en.jsonl ${data}
# Then: polygraft graft cpt -o instruct-moe --base <base> --post <instruct>
`
}

function slurm(): string {
  return `#!/usr/bin/env bash
#SBATCH --job-name=polygraft-cpt --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --time=48:00:00
# One launcher a node; what follows \`sbatch slurm.sh\` is given to train_moe.py.
set -euo pipefail
export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun bash -c 'accelerate launch --config_file fsdp.yaml --num_machines "$SLURM_NNODES" --num_processes $((8 * SLURM_NNODES)) \\
  --machine_rank "$SLURM_NODEID" --main_process_ip "$HEAD" --main_process_port 29500 train_moe.py "$@"' _ "$@"
`
}
