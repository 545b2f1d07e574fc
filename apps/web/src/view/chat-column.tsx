import { type Column, prompts } from '../state/chat.js'
import { text } from '../state/settings.js'
import { number, share } from './format.js'
import { Problems } from './parts.js'
import { firstChoices, Legend, Tokens } from './tokens.js'

/** One model's side of the conversation. */
export function ChatColumn({ column, layer }: { column: Column; layer: number }) {
  const { part, status, progress, model, answers, last, problems } = column
  const experts = model?.experts ?? []
  return (
    <section class="card chat" aria-label={text.value.parts[part]}>
      <h2>{text.value.parts[part]}</h2>
      <p class="muted">{model ? model.device : text.value.loadedOnDemand}</p>
      {status === 'loading' && (
        <progress aria-label={text.value.loading} max={Math.max(1, progress[1])} value={progress[0]} />
      )}
      <Legend experts={experts} />
      <ol class="turns">
        {prompts.value.map((prompt, turn) => (
          <li key={turn}>
            <p class="prompt">{prompt}</p>
            <p class="answer">
              <Tokens pieces={answers[turn] ?? []} layer={layer} experts={experts} />
            </p>
            {experts.length > 0 && (answers[turn] ?? []).length > 0 && (
              <p class="muted small">
                {firstChoices(answers[turn]!, layer, experts.length)
                  .map((part, e) => `${experts[e]} ${share(part)}`)
                  .join(' · ')}
              </p>
            )}
          </li>
        ))}
      </ol>
      {status === 'ready' && last && (
        <p class="muted small">
          {text.value.speed(number(last.newTokens), number((1000 * last.newTokens) / last.elapsedMs))}
          {last.finishReason === 'length' && ` · ${text.value.cutOff}`}
        </p>
      )}
      <Problems problems={problems} />
    </section>
  )
}
