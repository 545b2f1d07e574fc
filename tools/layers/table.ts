/** The layer of every package: imports go to strictly lower ones. The apps stand above all of them. */
export const LAYERS: Readonly<Record<string, number>> = {
  tensor: 0,
  'tensor-io': 1,
  architectures: 1,
  kernels: 1,
  engine: 2,
  delta: 2,
  routing: 2,
  experts: 2,
  webgpu: 2,
  upcycle: 3,
  graft: 3,
  model: 3,
  train: 4,
  evaluate: 4,
  recipe: 4,
}

/** Packages that others install on their own: they bring nothing from outside the workspace. */
export const WITHOUT_EXTERNAL_DEPENDENCIES = ['tensor', 'tensor-io', 'delta', 'routing']

/** Only these may touch the platform, and only in files of a folder named `node`. */
export const WITH_PLATFORM_FILES = ['tensor-io', 'engine', 'webgpu']
