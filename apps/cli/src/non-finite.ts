import type { Manifest } from '@polygraft/engine'
import { type Problem, throwIfAny } from '@polygraft/tensor'
import { Option } from 'commander'
import { formatCount } from './format.js'

/** What is done about elements that are computed and are NaN or infinite. The manifest has their number either way. */
export type NonFinitePolicy = 'warn' | 'allow' | 'error'

/** `--non-finite`, for commands that publish. */
export function nonFiniteOption(): Option {
  const help = 'what NaN and infinite elements that were computed get: a warning, nothing, or no output'
  return new Option('--non-finite <policy>', help).choices(['warn', 'allow', 'error']).default('warn')
}

/** @throws ModelError 'non-finite' with every such tensor, where the policy is 'error'. */
export function refuseNonFinite({ nonFinite }: Manifest, policy: NonFinitePolicy): void {
  if (policy !== 'error' || !nonFinite) return
  throwIfAny(
    Object.entries(nonFinite.tensors).map(
      ([tensor, { fromInputs, made }]): Problem => ({
        code: 'non-finite',
        message: 'Elements of the output are NaN or infinite',
        tensor,
        expected: 'finite elements',
        received: `${formatCount(fromInputs)} because an input is, ${formatCount(made)} by the arithmetic`,
        next: 'Look at the inputs with polygraft diff, or write it anyway with --non-finite warn.',
      }),
    ),
  )
}

/** The warning's line, if there is something to warn of. */
export function describeNonFinite({ nonFinite }: Manifest, policy: NonFinitePolicy): string[] {
  if (policy === 'allow' || !nonFinite) return []
  const { fromInputs, made, tensors } = nonFinite
  const names = Object.keys(tensors)
  const more = names.length > 3 ? ` and ${names.length - 3} more` : ''
  return [
    `warning: ${formatCount(fromInputs + made)} elements are NaN or infinite, ${formatCount(fromInputs)} because an input is, in ${names.slice(0, 3).join(', ')}${more}`,
  ]
}
