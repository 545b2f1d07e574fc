import type { TextTokenizer } from './open-tokenizer.js'

/** The text of an answer as it grows. */
export interface AnswerText {
  /** Takes one more token. Text that is settled by now, and whether a stop string ended it. */
  push(token: number): { readonly text: string; readonly stopped: boolean }
  /** What was held back. */
  end(): string
}

/** Stands where bytes are no whole character yet. */
const INCOMPLETE = '\ufffd'

/**
 * Tokens to text, piece by piece: characters in several tokens wait until they are whole, and what may be the beginning of a stop
 * string waits until it is known. Stop strings are left out.
 */
export function createAnswerText({ decode }: TextTokenizer, stops: readonly string[]): AnswerText {
  // Tokens are decoded together with those just before them, since some decoders look at the neighbours.
  let before: number[] = []
  let open: number[] = []
  let held = ''

  function settle(): string {
    const text = decode([...before, ...open]).slice(decode(before).length)
    ;[before, open] = [open, []]
    return text
  }

  return {
    push(token) {
      open.push(token)
      if (!decode([...before, ...open]).endsWith(INCOMPLETE)) held += settle()
      const at = firstOf(held, stops)
      if (at !== undefined) {
        const text = held.slice(0, at)
        held = ''
        open = []
        return { text, stopped: true }
      }
      const keep = heldBack(held, stops)
      const text = held.slice(0, held.length - keep)
      held = held.slice(held.length - keep)
      return { text, stopped: false }
    },
    end() {
      const text = held + (open.length > 0 ? settle() : '')
      held = ''
      return text
    },
  }
}

function firstOf(text: string, stops: readonly string[]): number | undefined {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0)
  return found.length === 0 ? undefined : Math.min(...found)
}

/** Length of the longest end of `text` that begins a stop string. */
function heldBack(text: string, stops: readonly string[]): number {
  const longest = Math.max(0, ...stops.map((stop) => stop.length - 1))
  for (let length = Math.min(text.length, longest); length > 0; length--)
    if (stops.some((stop) => stop.startsWith(text.slice(text.length - length)))) return length
  return 0
}
