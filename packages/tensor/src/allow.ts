import type { Checkpoint, Skipped } from './checkpoint.js'

/** Tensors of an input that are left out deliberately: those whose names hold `tensors`, where `*` stands for anything. */
export interface Allowed {
  readonly tensors: string
  /** Why; goes into the manifest. */
  readonly reason: string
}

/** Whether the name of a tensor holds `filter`, whose parts between `*` must follow each other. */
export function matchesName(filter: string, name: string): boolean {
  let from = 0
  return filter.split('*').every((part) => {
    const at = name.indexOf(part, from)
    from = at + part.length
    return at >= 0
  })
}

/** The tensors of `checkpoint` that may be left out, with the reason of the first rule that names them; `role` tells whose they are. */
export function allowedTensors(
  { tensors }: Checkpoint,
  allow: readonly Allowed[],
  role: string,
): readonly Skipped[] {
  return [...tensors.keys()].flatMap((tensor) => {
    const rule = allow.find((each) => matchesName(each.tensors, tensor))
    return rule ? [{ tensor, reason: `${rule.reason} (${role})` }] : []
  })
}

/** `checkpoint` without the tensors that may be left out; itself where there are none. */
export function withoutAllowed(checkpoint: Checkpoint, allow: readonly Allowed[]): Checkpoint {
  const names = new Set(allowedTensors(checkpoint, allow, '').map(({ tensor }) => tensor))
  if (names.size === 0) return checkpoint
  return { ...checkpoint, tensors: new Map([...checkpoint.tensors].filter(([name]) => !names.has(name))) }
}
