import { useSignal } from '@preact/signals'
import { text } from '../state/settings.js'
import type { Outlook } from '../worker/api.js'
import { bytes, count } from './format.js'
import { Facts, Problems } from './parts.js'

/** What building takes, what speaks against it, and the command that does the same. */
export function PlanPanel({ outlook }: { outlook: Outlook | undefined }) {
  if (!outlook) return null
  const { figures, problems, warnings, commands } = outlook
  return (
    <section class="card">
      <h2>{text.value.plan}</h2>
      {figures && (
        <Facts
          facts={[
            [text.value.parameters, count(figures.parameters)],
            [text.value.active, figures.active === undefined ? undefined : count(figures.active)],
            [text.value.experts, figures.experts.join(', ') || undefined],
            [text.value.read, bytes(figures.bytesRead)],
            [text.value.written, bytes(figures.bytesWritten)],
            [text.value.memory, bytes(figures.peakBytes)],
          ]}
        />
      )}
      <Problems problems={problems} />
      <Problems problems={warnings} kind="warning" />
      {problems.length === 0 && <p>{text.value.noProblems}</p>}
      {commands.length > 0 && <Commands commands={commands} />}
    </section>
  )
}

function Commands({ commands }: { commands: readonly string[] }) {
  const isCopied = useSignal(false)
  const all = commands.join('\n')
  const copy = async () => {
    await navigator.clipboard.writeText(all)
    isCopied.value = true
  }
  return (
    <>
      <h3>{text.value.command}</h3>
      <pre>
        <code>{all}</code>
      </pre>
      <button type="button" onClick={copy}>
        {isCopied.value ? text.value.copied : text.value.copy}
      </button>
    </>
  )
}
