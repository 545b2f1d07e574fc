// Preloaded (node --require): the process ends where it would write a tensor's first byte, which comes after the header.
const fs = require('node:fs')
const { syncBuiltinESMExports } = require('node:module')

const endAt = (position) => {
  if (position > 0) process.kill(process.pid, 'SIGKILL')
}
const { writeSync } = fs
fs.writeSync = (...args) => {
  endAt(args[4])
  return writeSync(...args)
}
syncBuiltinESMExports()
fs.promises.open(__filename).then((handle) => {
  const prototype = Object.getPrototypeOf(handle)
  const { write } = prototype
  prototype.write = function (...args) {
    endAt(args[3])
    return write.apply(this, args)
  }
  return handle.close()
})
