import type { Evaluation } from '@polygraft/evaluate'
import { ModelError } from '@polygraft/tensor'

/** A step of a run, as `polygraft train` writes it into `log.jsonl`. */
export interface TrainStep {
  readonly step: number
  readonly loss: number
  readonly rate: number
  readonly gradientNorm: number
}

/** What `polygraft eval --json` printed, or a run's log. */
export type Report =
  | { readonly kind: 'eval'; readonly evaluations: readonly Evaluation[] }
  | { readonly kind: 'train'; readonly steps: readonly TrainStep[] }

/** @throws ModelError 'bad-report' for any other text. */
export function parseReport(text: string, file: string): Report {
  const whole = parsed(text) as (Evaluation & { reference?: Evaluation }) | undefined
  if (whole && isEvaluation(whole)) {
    const { reference, ...own } = whole
    return { kind: 'eval', evaluations: isEvaluation(reference) ? [own, reference] : [own] }
  }
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  const steps = lines.map(parsed).filter(isStep)
  if (lines.length > 0 && steps.length === lines.length) return { kind: 'train', steps }
  throw new ModelError({
    code: 'bad-report',
    message: 'This is no report',
    file,
    expected: 'what polygraft eval --json prints, or the log.jsonl of a polygraft train run',
    received: text.slice(0, 80),
  })
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function isEvaluation(value: unknown): value is Evaluation {
  const { checkpoint, languages, tasks } = (value ?? {}) as Partial<Evaluation>
  return typeof checkpoint === 'string' && typeof languages === 'object' && typeof tasks === 'object'
}

function isStep(value: unknown): value is TrainStep {
  const { step, loss, rate, gradientNorm } = (value ?? {}) as Partial<TrainStep>
  return [step, loss, rate, gradientNorm].every((each) => typeof each === 'number')
}
