import { ModelError } from '@polygraft/tensor'

/** What a device reports when it can no longer be used. */
export function deviceLost(reason: string, message: string): ModelError {
  const given = reason === 'destroyed'
  return new ModelError({
    code: 'device-lost',
    message: given ? 'The GPU device was destroyed, and is used again' : 'The GPU device was lost',
    received: message || reason || 'no reason',
    next: given
      ? 'Create another with createGpu, and its buffers anew.'
      : 'Create the device and its buffers anew; where it happens again, take smaller batches or another GPU.',
  })
}

/** What the device refused: a shader that does not compile, a wrong binding, memory that is not there. */
export function deviceError(error: { readonly message: string }): ModelError {
  const outOfMemory = error.constructor.name === 'GPUOutOfMemoryError'
  return new ModelError({
    code: outOfMemory ? 'out-of-memory' : 'gpu-error',
    message: outOfMemory ? 'The GPU has not enough memory' : 'The GPU refused a command',
    received: error.message,
    ...(outOfMemory ? { next: 'Take a smaller model, a shorter context, or --device cpu.' } : {}),
  })
}

/** Something over what the device can do. */
export function overLimit(message: string, limit: number, received: number): ModelError {
  return new ModelError({
    code: 'gpu-limit',
    message,
    expected: `at most ${limit}`,
    received: `${received}`,
  })
}
