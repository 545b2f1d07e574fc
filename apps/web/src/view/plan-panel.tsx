import { useSignal } from '@preact/signals'
import { text } from '../state/settings.js'
import type { Outlook } from '../worker/api.js'
import { bytes, count } from './format.js'
import { Facts, Problems } from './parts.js'

/** What building takes, what speaks against it, and the command that does the same. */
export function PlanPanel({ outlook }: { outlook: Outlook | undefined }) {
  if (!outlook) return null
  const { figures, problems, warnings, commands, yaml } = outlook
  return (
    <section class="card">
      <h2>{text.value.plan}</h2>
      {figures && (
        <Facts
          facts={[
            [text.value.parameters, count(figures.parameters)],
            [text.value.active, figures.active === undefined ? undefined : count(figures.active)],
            [text.value.flopPerToken, count(figures.flopPerToken)],
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
      {commands.length > 0 && <Snippet title={text.value.command} content={commands.join('\n')} />}
      {yaml !== '' && <Snippet title={text.value.yaml} content={yaml} />}
    </section>
  )
}

/** Text to copy. */
function Snippet({ title, content }: { title: string; content: string }) {
  const isCopied = useSignal(false)
  const copy = async () => {
    await navigator.clipboard.writeText(content)
    isCopied.value = true
  }
  return (
    <>
      <h3>{title}</h3>
      <pre>
        <code>{content}</code>
      </pre>
      <button type="button" onClick={copy}>
        {isCopied.value ? text.value.copied : text.value.copy}
      </button>
    </>
  )
}
