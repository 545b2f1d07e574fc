import type { Problem, RowRuns } from '@polygraft/tensor'
import { appendRow, rowCount } from './_runs.js'
import type { Vocabulary } from './vocabulary.js'

/** A checkpoint's tokenizer, if it could be read, and the number of rows of its embedding (and of its head). */
export interface VocabularyRows {
  readonly vocabulary: Vocabulary | undefined
  readonly rows: number
  /** What messages call it, where the role is not what the user knows it as. */
  readonly label?: string
}

/** Whose row each row of the output is made of; every list in the output's order within its kind. */
export interface TokenRuns {
  /** cpt + lambda * delta: row i of each of the three lists belongs together. */
  readonly graft: { readonly cpt: RowRuns; readonly base: RowRuns; readonly post: RowRuns }
  /** Rows copied from post. */
  readonly post: RowRuns
  /** Rows kept from cpt. */
  readonly cpt: RowRuns
  /** The output's rows out of [graft rows, then post rows, then cpt rows]. */
  readonly order: RowRuns
}

/** How the rows of vocabulary tensors (embedding [V, H], head [V, H]) go together. */
export interface RowAlignment {
  /** `same`: three equal tokenizers; `id`: a tokenizer is unknown, but row counts are equal; `token`: see `runs`. */
  readonly by: 'same' | 'id' | 'token'
  /** Rows of the output. */
  readonly rows: number
  /** Whose tokenizer the output carries: cpt's only where it has tokens that post lacks. */
  readonly tokenizer: 'post' | 'cpt'
  /** Only with `by: 'token'`. */
  readonly runs?: TokenRuns
  readonly problems: readonly Problem[]
}

type Role = 'base' | 'post' | 'cpt'
type Inputs<Rows> = Readonly<Record<Role, Rows>>

/**
 * Aligns the rows of three checkpoints by token string, in post's ids. A token
 * - of all three: cpt + lambda * (post - base), each from its own row;
 * - of post, but not of base or not of cpt: post's row;
 * - of cpt, but not of post: cpt's row, at cpt's id.
 * Rows of no token keep cpt's row (post's in a gap past cpt's last row), and end with the last token or cpt's last row.
 * Where the three tokenizers and row counts are equal, nothing needs to be moved (`same`): then every row, those of no
 * token too, is grafted.
 *
 * Pure; time and runs are linear in the number of rows. Problems: `vocabulary-collision` for every id that means two
 * tokens, `tokenizer-cannot-merge` for every token of post that cpt's tokenizer lacks or has elsewhere when cpt's has
 * to be carried, `vocabulary-unknown` when a tokenizer is missing and rows cannot be aligned without.
 *
 * @param inputs without `cpt`, post stands in for it: rows that are not differences are then copies of post's.
 */
export function alignVocabularies(inputs: {
  readonly base: VocabularyRows
  readonly post: VocabularyRows
  readonly cpt?: VocabularyRows
}): RowAlignment {
  const { base, post } = inputs
  const cpt = inputs.cpt ?? post
  const roles: readonly Role[] = inputs.cpt ? ['base', 'post', 'cpt'] : ['base', 'post']
  const all = { base, post, cpt }
  const equalRows = base.rows === post.rows && post.rows === cpt.rows
  const known = roles.map((role) => all[role].vocabulary).filter((vocabulary) => vocabulary !== undefined)
  const agree = known.every((vocabulary) => sameTokens(vocabulary, known[0]!))
  const whole = { rows: cpt.rows, tokenizer: 'post' as const, problems: [] }
  if (equalRows && agree) return { ...whole, by: known.length === roles.length ? 'same' : 'id' }
  if (!isKnown(base) || !isKnown(post) || !isKnown(cpt))
    return { ...whole, by: 'id', problems: [unknownVocabulary(all, roles)] }
  return alignByToken({ base, post, cpt }, roles)
}

interface KnownRows extends VocabularyRows {
  readonly vocabulary: Vocabulary
}

function isKnown(rows: VocabularyRows): rows is KnownRows {
  return rows.vocabulary !== undefined
}

function alignByToken(inputs: Inputs<KnownRows>, roles: readonly Role[]): RowAlignment {
  const tokens = { base: tokensOf(inputs.base), post: tokensOf(inputs.post), cpt: tokensOf(inputs.cpt) }
  const { post, cpt } = inputs
  const carriesCpt = [...cpt.vocabulary.ids.keys()].some((token) => !post.vocabulary.ids.has(token))
  const runs = tokenRuns(inputs, tokens)
  return {
    by: 'token',
    rows: rowCount(runs.order),
    tokenizer: carriesCpt ? 'cpt' : 'post',
    runs,
    problems: [
      ...collisions(inputs, tokens, roles),
      ...(carriesCpt ? unmergeable(post.vocabulary, cpt.vocabulary) : []),
    ],
  }
}

type Tokens = readonly (string | undefined)[]

/** Token by id, for the ids that have a row; tokenizers may go past the last row. */
function tokensOf({ vocabulary, rows }: KnownRows): Tokens {
  const tokens: (string | undefined)[] = new Array(rows).fill(undefined)
  for (const [token, id] of vocabulary.ids) if (id < rows) tokens[id] = token
  return tokens
}

function tokenRuns(inputs: Inputs<KnownRows>, tokens: Inputs<Tokens>): TokenRuns {
  const rowOf = (role: Role, token: string) => {
    const id = inputs[role].vocabulary.ids.get(token)
    return id !== undefined && id < inputs[role].rows ? id : undefined
  }
  const graft = { cpt: [] as Run[], base: [] as Run[], post: [] as Run[] }
  const fromPost: Run[] = []
  const fromCpt: Run[] = []
  const kinds: ('graft' | 'post' | 'cpt')[] = []
  const rows = Math.max(inputs.cpt.rows, lastToken(tokens.post) + 1)
  for (let row = 0; row < rows; row++) {
    const token = tokens.post[row]
    const base = token === undefined ? undefined : rowOf('base', token)
    const cpt = token === undefined ? undefined : rowOf('cpt', token)
    const kind =
      token === undefined && row < inputs.cpt.rows
        ? 'cpt'
        : base === undefined || cpt === undefined
          ? 'post'
          : 'graft'
    kinds.push(kind)
    if (kind === 'cpt') appendRow(fromCpt, row)
    else if (kind === 'post') appendRow(fromPost, row)
    else {
      appendRow(graft.cpt, cpt!)
      appendRow(graft.base, base!)
      appendRow(graft.post, row)
    }
  }
  return { graft, post: fromPost, cpt: fromCpt, order: orderOf(kinds) }
}

type Run = readonly [start: number, count: number]

/** Where each output row lies once the rows are sorted by kind. */
function orderOf(kinds: readonly ('graft' | 'post' | 'cpt')[]): Run[] {
  const next = { graft: 0, post: 0, cpt: 0 }
  for (const kind of kinds) next[kind]++
  next.cpt = next.graft + next.post
  next.post = next.graft
  next.graft = 0
  const order: Run[] = []
  for (const kind of kinds) appendRow(order, next[kind]++)
  return order
}

function lastToken(tokens: Tokens): number {
  let last = tokens.length - 1
  while (last >= 0 && tokens[last] === undefined) last--
  return last
}

function sameTokens(a: Vocabulary, b: Vocabulary): boolean {
  if (a === b) return true
  if (a.ids.size !== b.ids.size) return false
  for (const [token, id] of a.ids) if (b.ids.get(token) !== id) return false
  return true
}

function collisions(
  inputs: Inputs<VocabularyRows>,
  tokens: Inputs<Tokens>,
  roles: readonly Role[],
): Problem[] {
  const problems: Problem[] = []
  const ids = Math.max(...roles.map((role) => tokens[role].length))
  for (let id = 0; id < ids; id++) {
    const meanings = roles.filter((role) => tokens[role][id] !== undefined)
    if (meanings.every((role) => tokens[role][id] === tokens[meanings[0]!][id])) continue
    problems.push({
      code: 'vocabulary-collision',
      message: `Token id ${id} means different tokens`,
      expected: 'one token in every tokenizer that has the id',
      received: listed(meanings, (role) => `${JSON.stringify(tokens[role][id])} in ${labelOf(inputs, role)}`),
      next: 'Give the added tokens ids that no other tokenizer uses.',
    })
  }
  return problems
}

function unmergeable(post: Vocabulary, cpt: Vocabulary): Problem[] {
  const problems: Problem[] = []
  for (const [token, id] of post.ids) {
    const other = cpt.ids.get(token)
    if (other === id) continue
    problems.push({
      code: 'tokenizer-cannot-merge',
      message: `cpt has tokens that post lacks, so its tokenizer must be carried, but token ${JSON.stringify(token)} differs`,
      expected: `id ${id} as in post`,
      received: other === undefined ? 'no such token in cpt' : `id ${other} in cpt`,
      next: "Add post's tokens to cpt's tokenizer under post's ids.",
    })
  }
  return problems
}

function unknownVocabulary(inputs: Inputs<VocabularyRows>, roles: readonly Role[]): Problem {
  const missing = roles.filter((role) => !inputs[role].vocabulary)
  return {
    code: 'vocabulary-unknown',
    message: `No tokenizer could be read from ${listed(missing, (role) => labelOf(inputs, role))}, and rows cannot be aligned by id`,
    expected: 'a tokenizer.json in each checkpoint, or equal row counts and no differing tokenizers',
    received: listed(roles, (role) => `${inputs[role].rows} rows in ${labelOf(inputs, role)}`),
    next: 'Save the tokenizer that belongs to the weights beside them.',
  }
}

function labelOf(inputs: Inputs<VocabularyRows>, role: Role): string {
  return inputs[role].label ?? role
}

function listed(roles: readonly Role[], text: (role: Role) => string): string {
  return [...new Set(roles.map(text))].join(', ')
}
