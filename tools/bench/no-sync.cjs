// Preloaded (node --require): flushing to the disk does nothing. For measuring what it costs, and for nothing else.
const fs = require('node:fs')

fs.fsyncSync = () => {}
fs.fdatasyncSync = () => {}
fs.promises.open(__filename).then((handle) => {
  const prototype = Object.getPrototypeOf(handle)
  prototype.sync = async () => {}
  prototype.datasync = async () => {}
  return handle.close()
})
