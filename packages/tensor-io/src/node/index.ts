export { fsError } from './_fs-error.js'
export type { LocalFolder } from './create-folder.js'
export { createFolder } from './create-folder.js'
export type { FileSource } from './file-source.js'
export { fileSource, fileState } from './file-source.js'
export { freeBytes } from './free-bytes.js'
export { openFolder, openPath } from './open-folder.js'
export type { CreateOptions } from './output-problems.js'
export { outputProblems } from './output-problems.js'
export {
  type Kept,
  keptBytes,
  type ResumableFolder,
  type ResumeOptions,
  resumeFolder,
  taskFolder,
  workFolder,
} from './resume-folder.js'
