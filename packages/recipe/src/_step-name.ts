/** Names of steps: single words, which paths in our own recipes are not. */
export const STEP_NAME = /^[A-Za-z_][\w-]*$/
