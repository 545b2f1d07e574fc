import { render } from 'preact'
import { startSettings } from './state/settings.js'
import { App } from './view/app.js'
import './style.css'

await startSettings()
render(<App />, document.querySelector('#app')!)
// Works without a network from the second visit on. Where it is not allowed, it does not.
if ('serviceWorker' in navigator) navigator.serviceWorker.register('./sw.js').catch(() => undefined)
