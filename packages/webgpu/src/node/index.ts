export { openDawn } from './open-dawn.js'
