import type { Family, Group, Part, TensorRule } from './family.js'

/** What a tensor is, independent of how its family names it. Indices count from 0. */
export interface Role {
  readonly group: Group
  readonly layer?: number
  readonly expert?: number
  readonly part?: Part
}

const BUFFER = /(^|\.)rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)$/
const INDEX = '(0|[1-9][0-9]{0,8})'

interface NamePattern {
  readonly rule: TensorRule
  readonly pattern: RegExp
}

/** Made once per family: a checkpoint has thousands of names to look up. */
const patterns = new WeakMap<Family, readonly NamePattern[]>()

/** The role of the tensor `name` in `family`; group `other` when the family has no such tensor. */
export function roleOf(family: Family, name: string): Role {
  if (BUFFER.test(name)) return { group: 'buffer' }
  for (const { rule, pattern } of patternsOf(family)) {
    const match = pattern.exec(name)
    if (match) return roleOfRule(rule, match.groups ?? {})
  }
  return { group: 'other' }
}

function roleOfRule(rule: TensorRule, groups: Record<string, string | undefined>): Role {
  return {
    group: rule.group,
    ...(groups.layer === undefined ? {} : { layer: Number(groups.layer) }),
    ...(groups.expert === undefined ? {} : { expert: Number(groups.expert) }),
    ...(rule.part ? { part: rule.part } : {}),
  }
}

function patternsOf(family: Family): readonly NamePattern[] {
  const known = patterns.get(family)
  if (known) return known
  const made = family.tensors.map((rule) => ({ rule, pattern: patternOf(rule.name) }))
  patterns.set(family, made)
  return made
}

function patternOf(name: string): RegExp {
  const escaped = name.replaceAll('.', '\\.')
  const indexed = escaped.replace('{layer}', `(?<layer>${INDEX})`).replace('{expert}', `(?<expert>${INDEX})`)
  return new RegExp(`^${indexed}$`)
}

/** The name of the tensor with that role, or undefined when the family has none. Inverse of `roleOf`. */
export function nameOf(family: Family, role: Role): string | undefined {
  const rule = family.tensors.find((each) => each.group === role.group && each.part === role.part)
  if (!rule || rule.name.includes('{layer}') !== (role.layer !== undefined)) return undefined
  if (rule.name.includes('{expert}') !== (role.expert !== undefined)) return undefined
  return tensorName(rule, role.layer, role.expert)
}

/** A rule's name with its indices filled in. */
export function tensorName(rule: TensorRule, layer?: number, expert?: number): string {
  return rule.name.replace('{layer}', String(layer)).replace('{expert}', String(expert))
}

/**
 * The dense tensor that a tensor of an upcycled mixture derives from: the layer's feed-forward matrix for every expert, the
 * same role for everything else. Undefined for what is new or no dense family has: router, shared expert, buffers, unknown names;
 * and for a tensor of several experts, which derives from several.
 */
export function denseName(mixture: Family, dense: Family, name: string): string | undefined {
  const role = roleOf(mixture, name)
  if (role.group !== 'expert') return nameOf(dense, role)
  const { expert, ...rest } = role
  if (expert === undefined) return undefined
  return nameOf(dense, { ...rest, group: 'ffn' })
}
