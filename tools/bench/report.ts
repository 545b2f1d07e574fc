import { type Spread, spreadOf, type Usage } from './measure.js'
import type { Measured } from './rounds.js'
import type { Variant } from './variants.js'

/** What one set of data is, and the cases measured on it. */
export interface Group {
  readonly title: string
  readonly measured: readonly Measured[]
}

export interface StartUp {
  readonly label: string
  readonly usages: readonly Usage[]
}

export interface Report {
  readonly command: string
  readonly date: string
  readonly machine: readonly string[]
  /** How busy the machine was with other things. */
  readonly quiet: readonly string[]
  readonly groups: readonly Group[]
  readonly startUps: readonly StartUp[]
  readonly mergekit: string
  readonly notMeasured: readonly string[]
  /** What the scripts that measure kernels alone printed. */
  readonly kernels: string
}

const DOES_NOT = '–'

/** docs/benchmarks.md. */
export function formatReport(report: Report): string {
  const cases = report.groups.flatMap(({ measured }) => measured)
  return [
    '# Benchmarks',
    '',
    `Written by \`${report.command}\` on ${report.date}. Read the ratios: they are taken in one run, and move less than the times do from machine to machine.`,
    '',
    ...report.machine.map((fact) => `- ${fact}`),
    ...report.quiet.map((line) => `- ${line}`),
    '',
    '## Ratios',
    'Medians against medians. Wall time against `cp` of the same bytes; polygraft flushes its output to the disk before it shows it, so the',
    'like of it is `cp` with `sync FILE`, and polygraft with flushing switched off is there to compare with plain `cp`. Where other programs took',
    'the processors, CPU seconds still compare. [What they go into](where-the-time-goes.md).',
    '',
    ...table(
      [
        'case',
        'polygraft / cp, both flushed',
        'neither flushed',
        'flushed / not',
        'CPU, neither flushed',
        'mergekit / polygraft: wall',
        'CPU',
        'peak',
      ],
      cases.map(ratios),
    ),
    '',
    ...report.groups.flatMap(({ title, measured }) => [
      `## ${title}`,
      'Median (least–most). Bytes per second: read and written by the row. CPU: user and system. Peak: of the largest process.',
      '',
      ...table(
        ['case', 'variant', 'wall, s', 'CPU, s', 'GB', 'GB/s', 'peak, MB'],
        measured.flatMap((each) =>
          listOf(each).map((variant, i) => [i === 0 ? each.case.id : '', ...row(each, variant)]),
        ),
      ),
      '',
    ]),
    '## Start-up',
    'Without NODE_EXTRA_CA_CERTS, here and above: where that is set, every start of Node takes some 30 ms more.',
    '',
    ...table(
      ['', 'wall, s', 'CPU, s', 'peak, MB'],
      report.startUps.map(({ label, usages }) => [label, ...usageCells(usages)]),
    ),
    '',
    '## Kernels alone',
    'One thread, tiles that stay in the cache; best of many short rounds. Bytes in and out per second, then time per element.',
    '',
    '```text',
    report.kernels.trimEnd(),
    '```',
    '',
    '## What the rows do',
    ...cases.map(({ case: { id, does } }) => `- **${id}**: ${does}.`),
    '- **cp**, **cat**: what is only read goes through `cat FILE... > /dev/null`, then `cp` copies as many bytes as the case writes;',
    '  for grafts and merges base and instruct are read and cpt is copied. One process after the other, as a shell runs them.',
    '- **and sync**: followed by `sync FILE`, which flushes the copy to the disk.',
    '- **polygraft**: the built command, started anew each time; it reads, computes, writes, digests (SHA-256), flushes and renames.',
    '- **no sync**: the same with flushing switched off from outside.',
    `- **mergekit**: ${report.mergekit}; the program is started anew each time, imports included.`,
    '',
    'Data: random BF16 weights; instruct and cpt differ from base in two fifths of the elements by one to three units in the last place. Every',
    'variant runs once untimed, so inputs come from the page cache; then all take turns, and the disk is flushed between any two. What the kernel',
    "writes back in the background is in nobody's CPU time.",
    '',
    '## Not measured',
    ...report.notMeasured.map((line) => `- ${line}`),
    '',
  ].join('\n')
}

function listOf({ variants }: Measured): Variant[] {
  return Object.values(variants)
}

function row({ bytes, usages }: Measured, { key, label }: Variant): string[] {
  const [wall, cpu, peak] = usageCells(usages.get(key)!)
  const moved = bytes.get(key)!
  const rate = moved / spreadOf(usages.get(key)!.map(({ wallSeconds }) => wallSeconds)).median
  return [label, wall!, cpu!, (moved / 1e9).toFixed(2), (rate / 1e9).toFixed(2), peak!]
}

function usageCells(usages: readonly Usage[]): string[] {
  const wall = spreadOf(usages.map(({ wallSeconds }) => wallSeconds))
  const cpu = spreadOf(usages.map(({ cpuSeconds }) => cpuSeconds))
  const peak = spreadOf(usages.map(({ peakBytes }) => peakBytes))
  return [formatSpread(wall), formatSpread(cpu), (peak.most / 1e6).toFixed(0)]
}

function formatSpread({ median, least, most }: Spread): string {
  return `${median.toFixed(2)} (${least.toFixed(2)}–${most.toFixed(2)})`
}

function ratios({ case: { id }, variants, usages }: Measured): string[] {
  const medianOf = (variant: Variant | undefined, of: keyof Usage) =>
    variant ? spreadOf(usages.get(variant.key)!.map((usage) => usage[of])).median : Number.NaN
  const ratio = (a: Variant | undefined, b: Variant | undefined, of: keyof Usage = 'wallSeconds') => {
    const value = medianOf(a, of) / medianOf(b, of)
    return Number.isNaN(value) ? DOES_NOT : value.toFixed(2)
  }
  const { ours, oursUnsynced, peer, peerSynced, mergekit } = variants
  return [
    id,
    ratio(ours, peerSynced),
    ratio(oursUnsynced ?? ours, peer),
    ratio(ours, oursUnsynced),
    ratio(oursUnsynced ?? ours, peer, 'cpuSeconds'),
    ...(['wallSeconds', 'cpuSeconds', 'peakBytes'] as const).map((of) => ratio(mergekit, ours, of)),
  ]
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}
