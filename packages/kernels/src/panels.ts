import { byteSize } from '@polygraft/tensor'
import { PANEL, type PanelDType, panelStep } from './_matmul-codegen.js'
import { aligned } from './float-formats.js'

/** Bytes of a packed matrix [N, K]: panels of 8 rows [K, 8], the last one filled up. */
export function packedBytes(dtype: PanelDType, n: number, k: number): number {
  return Math.ceil(n / PANEL) * k * panelStep(dtype)
}

/**
 * Packs stored rows of a matrix [N, K] for `multiplyPacked`, unchanged but for their order.
 * @param bytes Rows from `begin` on, a multiple of 8; N is reached or their number is a multiple of 8, too.
 * @param out The packed matrix; what fills its last panel up is left as it is.
 */
export function packPanels(
  dtype: PanelDType,
  bytes: Uint8Array,
  begin: number,
  k: number,
  out: Uint8Array,
): void {
  const source = elementsOf(dtype, aligned(bytes, byteSize(dtype, 1)))
  const target = elementsOf(dtype, out)
  const rows = source.length / k
  for (let panel = 0; panel < rows; panel += PANEL) {
    const to = (begin + panel) * k
    for (let row = panel; row < Math.min(rows, panel + PANEL); row++) {
      const place = to + placeOf(dtype, row - panel)
      for (let i = 0; i < k; i++) target[place + i * PANEL] = source[row * k + i]!
    }
  }
}

/** Row `row` of a packed matrix, stored elements in order. */
export function unpackRow(
  dtype: PanelDType,
  packed: Uint8Array,
  row: number,
  k: number,
  out: Uint8Array,
): void {
  const source = elementsOf(dtype, packed)
  const target = elementsOf(dtype, out)
  const begin = (row - (row % PANEL)) * k + placeOf(dtype, row % PANEL)
  for (let i = 0; i < k; i++) target[i] = source[begin + i * PANEL]!
}

/** Where a panel's row lies within a step. In 16 bits rows i and i + 4 share a word, so that a shift and a mask tell them apart. */
function placeOf(dtype: PanelDType, row: number): number {
  return dtype === 'F32' ? row : 2 * (row % 4) + Math.floor(row / 4)
}

function elementsOf(dtype: PanelDType, bytes: Uint8Array): Uint32Array | Uint16Array {
  const { buffer, byteOffset, length } = bytes
  return dtype === 'F32'
    ? new Uint32Array(buffer, byteOffset, length / 4)
    : new Uint16Array(buffer, byteOffset, length / 2)
}
