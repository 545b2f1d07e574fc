import type { Signal } from '@preact/signals'
import { text } from '../state/settings.js'
import type { Model } from '../worker/api.js'
import { count } from './format.js'
import { levelsOf } from './levels.js'

/** The model drawn layer by layer; a block filters the table. */
export function Architecture({ model, filter }: { model: Model; filter: Signal<string> }) {
  return (
    <ol class="architecture">
      {levelsOf(model.tensors).map(({ label, blocks }, i) => (
        <li key={i}>
          <span class="level">{label && `${text.value.layer} ${label}`}</span>
          <div class="blocks">
            {blocks.map((block) => (
              <button
                type="button"
                key={block.label}
                class={`block ${block.group}`}
                aria-pressed={filter.value === block.prefix}
                title={`${block.label}: ${count(block.parameters)}`}
                onClick={() => {
                  filter.value = filter.value === block.prefix ? '' : block.prefix
                }}
              >
                {block.label}
              </button>
            ))}
          </div>
        </li>
      ))}
    </ol>
  )
}
