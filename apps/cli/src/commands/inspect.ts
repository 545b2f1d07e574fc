import { countParameters, familyOf, roleOf } from '@polygraft/architectures'
import { byteSize, type Checkpoint, type DType, type JsonObject, ModelError, numel } from '@polygraft/tensor'
import type { Command } from 'commander'
import { formatBytes, formatCount, formatTable, plural } from '../format.js'
import { CHECKPOINT_HELP, openCheckpoint } from '../open.js'
import { createTerminal } from '../terminal.js'
import { addExample, addJson } from './_options.js'

interface Row {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  readonly bytes: number
  readonly group: string
}

/** `polygraft inspect <checkpoint>` */
export function addInspect(program: Command): void {
  const command = program
    .command('inspect')
    .description('Show a checkpoint: family, sizes, groups of tensors. Reads headers only.')
    .argument('<checkpoint>', CHECKPOINT_HELP)
    .option('--tensors', 'list every tensor')
  addExample(addJson(command), 'polygraft inspect ./Llama-3.1-8B', 'polygraft inspect ./moe --tensors --json')
  command.action(run)
}

async function run(location: string, args: { tensors?: boolean; json?: boolean }): Promise<void> {
  const checkpoint = await openCheckpoint(location)
  const family = familyOrReason(checkpoint)
  const rows = rowsOf(checkpoint, family.name === undefined ? undefined : checkpoint.config)
  const report = {
    checkpoint: location,
    id: [...checkpoint.sources.keys()][0],
    family: family.name ?? null,
    ...(family.reason ? { familyProblem: family.reason } : {}),
    parameters: rows.reduce((sum, row) => sum + numel(row.shape), 0),
    ...(family.active === undefined ? {} : { activeParameters: family.active }),
    bytes: rows.reduce((sum, row) => sum + row.bytes, 0),
    shards: [...checkpoint.sources.values()].flatMap((s) =>
      [...s.shards].map(([file, { size }]) => ({ file, bytes: size })),
    ),
    dtypes: totals(rows, (row) => row.dtype),
    groups: totals(rows, (row) => row.group),
    files: [...checkpoint.files.keys()],
    ...(checkpoint.provenance.experts ? { experts: checkpoint.provenance.experts } : {}),
    recipe: checkpoint.provenance.recipe,
    tensorCount: rows.length,
    ...(args.tensors ? { tensors: rows } : {}),
  }
  createTerminal(args.json ?? false).result(report, () =>
    describe(report, checkpoint, args.tensors ? rows : []),
  )
}

function familyOrReason(checkpoint: Checkpoint): { name?: string; reason?: string; active?: number } {
  try {
    const family = familyOf(checkpoint.config)
    const { active } = countParameters(family, checkpoint.config)
    return { name: family.modelType, ...(family.moe ? { active } : {}) }
  } catch (error) {
    if (!(error instanceof ModelError)) throw error
    const hasType = typeof checkpoint.config.model_type === 'string'
    return { reason: hasType ? error.problems[0]!.message : 'no config.json that says what model this is' }
  }
}

function rowsOf(checkpoint: Checkpoint, config: Checkpoint['config'] | undefined): Row[] {
  const family = config && familyOf(config)
  return [...checkpoint.tensors].map(([name, { dtype, shape }]) => ({
    name,
    dtype,
    shape,
    bytes: byteSize(dtype, numel(shape)),
    group: family ? roleOf(family, name).group : 'all',
  }))
}

type Totals = Record<string, { tensors: number; parameters: number; bytes: number }>

function totals(rows: readonly Row[], keyOf: (row: Row) => string): Totals {
  const sums: Totals = {}
  for (const row of rows) {
    const key = keyOf(row)
    sums[key] ??= { tensors: 0, parameters: 0, bytes: 0 }
    const sum = sums[key]
    sum.tensors += 1
    sum.parameters += numel(row.shape)
    sum.bytes += row.bytes
  }
  return sums
}

interface Report {
  readonly checkpoint: string
  readonly family: string | null
  readonly familyProblem?: string
  readonly parameters: number
  readonly activeParameters?: number
  readonly bytes: number
  readonly shards: readonly { file: string; bytes: number }[]
  readonly groups: Totals
  readonly dtypes: Totals
  readonly experts?: readonly string[]
  readonly recipe: readonly JsonObject[]
}

function describe(report: Report, { config }: Checkpoint, rows: readonly Row[]): string {
  const architectures = Array.isArray(config.architectures)
    ? config.architectures.join(', ')
    : 'unknown architecture'
  const active =
    report.activeParameters === undefined ? '' : `, ${formatCount(report.activeParameters)} active per token`
  const lines = [
    `${report.checkpoint}: ${architectures}`,
    `  parameters ${formatCount(report.parameters)}${active}; ${formatBytes(report.bytes)} in ${plural(report.shards.length, 'file')}; dtypes ${Object.keys(report.dtypes).join(', ')}`,
  ]
  if (report.experts) lines.push(`  experts ${report.experts.map((label, e) => `${e} ${label}`).join(', ')}`)
  const steps = report.recipe.map(({ op }) => op)
  if (steps.length > 0) lines.push(`  made by ${steps.join(', ')}`)
  if (report.familyProblem) lines.push(`  nothing but inspect and diff will do: ${report.familyProblem}`)
  const groups = Object.entries(report.groups).map(([group, t]) => [
    group,
    `${t.tensors}`,
    formatCount(t.parameters),
    formatBytes(t.bytes),
  ])
  lines.push('', formatTable([['group', 'tensors', 'parameters', 'size'], ...groups]))
  if (rows.length > 0) {
    const cells = rows.map((row) => [
      row.name,
      row.dtype,
      `[${row.shape.join(', ')}]`,
      formatBytes(row.bytes),
    ])
    lines.push('', formatTable([['tensor', 'dtype', 'shape', 'size'], ...cells]))
  }
  return lines.join('\n')
}
