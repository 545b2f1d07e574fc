const TOKENIZER =
  /^(tokenizer[._].*|tokenization_.*\.py|special_tokens_map\.json|added_tokens\.json|vocab\.(json|txt|bpe)|merges\.txt|(spiece|sentencepiece(\.bpe)?)\.model|tekken\.json|.*\.tiktoken)$/
const TEMPLATE = /^(chat_template\.(jinja|json)|additional_chat_templates\/.*)$/

/** Whether a checkpoint's file is part of its tokenizer. */
export function isTokenizerFile(name: string): boolean {
  return TOKENIZER.test(name)
}

/** Whether a checkpoint's file holds a chat template. */
export function isTemplateFile(name: string): boolean {
  return TEMPLATE.test(name)
}
