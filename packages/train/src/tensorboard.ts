/** The first record of an event file. `time`: seconds since 1970. */
export function formatEventFileStart(time: number): Uint8Array {
  return record([...double(1, time), ...bytesField(3, new TextEncoder().encode('brain.Event:2'))])
}

/**
 * A record of TensorBoard's event format (TFRecord of an Event with a Summary of simple values): length, masked CRC-32C of it, data, masked
 * CRC-32C of that.
 */
export function formatEvent(
  time: number,
  step: number,
  scalars: Readonly<Record<string, number>>,
): Uint8Array {
  const summary = Object.entries(scalars).flatMap(([tag, value]) =>
    bytesField(1, Uint8Array.from([...bytesField(1, new TextEncoder().encode(tag)), ...float(2, value)])),
  )
  return record([...double(1, time), 2 << 3, ...varint(step), ...bytesField(5, Uint8Array.from(summary))])
}

function record(data: readonly number[]): Uint8Array {
  const out = new Uint8Array(16 + data.length)
  const view = new DataView(out.buffer)
  view.setUint32(0, data.length, true)
  view.setUint32(8, maskedCrc(out.subarray(0, 8)), true)
  out.set(data, 12)
  view.setUint32(12 + data.length, maskedCrc(out.subarray(12, 12 + data.length)), true)
  return out
}

function double(field: number, value: number): number[] {
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setFloat64(0, value, true)
  return [(field << 3) | 1, ...bytes]
}

function float(field: number, value: number): number[] {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setFloat32(0, value, true)
  return [(field << 3) | 5, ...bytes]
}

function bytesField(field: number, bytes: Uint8Array): number[] {
  return [(field << 3) | 2, ...varint(bytes.length), ...bytes]
}

function varint(value: number): number[] {
  const out: number[] = []
  for (; value > 127; value = Math.floor(value / 128)) out.push((value % 128) | 128)
  return [...out, value]
}

/** Castagnoli's polynomial, reversed. */
const POLYNOMIAL = 0x82f63b78
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1
  return crc
})

function maskedCrc(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8)
  crc = ~crc >>> 0
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0
}
