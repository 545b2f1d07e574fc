import { type Expr, operands, type StateDict } from '@polygraft/tensor'
import { LOW_RANK_BYTES } from './_low-rank.js'
import { RANKS_BYTES } from './_ranks.js'

/** What expressions take beside their tiles. Unit: bytes. */
interface Resident {
  /** In the process. */
  readonly once: number
  /** In whatever computes: each thread, or the process where there is none. */
  readonly eachThread: number
}

/** Literals, as text and once decoded where they are used; the buffers of products; and the widest row that is ranked. */
export function residentBytes(tensors: StateDict): Resident {
  const seen = new Set<Expr>()
  let text = 0
  let products = 0
  let ranked = 0
  const visit = (expr: Expr): void => {
    if (seen.has(expr)) return
    seen.add(expr)
    if (expr.op === 'literal') text += expr.f32.length
    if (expr.op === 'lowrank') products = LOW_RANK_BYTES
    if (expr.op === 'ranks') ranked = Math.max(ranked, RANKS_BYTES * expr.width)
    for (const operand of operands(expr)) visit(operand)
  }
  for (const { expr } of tensors.values()) visit(expr)
  // Threads hold copies of the text; base64 has 4 letters for 3 bytes.
  return { once: text, eachThread: text + (text / 4) * 3 + products + ranked }
}
