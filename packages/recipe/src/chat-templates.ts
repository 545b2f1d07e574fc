const endOfPrompt = (text: string) => `{%- if add_generation_prompt -%}{{ ${text} }}{%- endif -%}`
const each = (body: string) => `{%- for message in messages -%}${body}{%- endfor -%}`

/** Chat formats that recipes may name, as Jinja text for `apply_chat_template` of transformers. */
export const CHAT_TEMPLATES: Readonly<Record<string, string>> = {
  // https://github.com/openai/openai-python/blob/v0.27.0/chatml.md
  chatml: `${each("{{ '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>\\n' }}")}${endOfPrompt("'<|im_start|>assistant\\n'")}`,
  // https://www.llama.com/docs/model-cards-and-prompt-formats/meta-llama-3
  llama3: `{{- bos_token -}}${each("{{ '<|start_header_id|>' ~ message['role'] ~ '<|end_header_id|>\\n\\n' ~ (message['content'] | trim) ~ '<|eot_id|>' }}")}${endOfPrompt("'<|start_header_id|>assistant<|end_header_id|>\\n\\n'")}`,
  // https://github.com/mistralai/mistral-common: version 1 of the instruct format; a system message goes before the first user's.
  mistral: `{{- bos_token -}}{%- set ns = namespace(system='') -%}${each(
    "{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] ~ '\\n\\n' -%}" +
      "{%- elif message['role'] == 'user' -%}{{ ' [INST] ' ~ ns.system ~ message['content'] ~ ' [/INST]' }}{%- set ns.system = '' -%}" +
      "{%- else -%}{{ ' ' ~ message['content'] ~ eos_token }}{%- endif -%}",
  )}`,
  // https://github.com/tatsu-lab/stanford_alpaca
  alpaca: `${each(
    "{%- if message['role'] == 'system' -%}{{ message['content'] ~ '\\n\\n' }}" +
      "{%- elif message['role'] == 'user' -%}{{ '### Instruction:\\n' ~ message['content'] ~ '\\n\\n' }}" +
      "{%- else -%}{{ '### Response:\\n' ~ message['content'] ~ eos_token ~ '\\n\\n' }}{%- endif -%}",
  )}${endOfPrompt("'### Response:\\n'")}`,
}
