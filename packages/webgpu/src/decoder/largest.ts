import { defineKernel, foldedGrid } from '../define-kernel.js'

const LANES = 256

/**
 * y[t] = the index of the largest of x[t], of equal ones the lowest; `columns` where one is not finite. Compared as integers, so that no
 * adapter's floats change it.
 * Bindings x F32 [rows, columns], y u32 [rows]. Dispatch: a workgroup of 256 for a row. Tolerance: none.
 */
export const largest = defineKernel({
  name: 'largest of a row',
  bindings: { x: { access: 'read', type: 'u32' }, y: { access: 'read-write', type: 'u32' } },
  params: { rows: 'u32', columns: 'u32' },
  workgroup: [LANES, 1, 1],
  declarations: `
var<workgroup> keys: array<u32, ${LANES}>;
var<workgroup> places: array<u32, ${LANES}>;

// Grows with the float of these bits, -0 as +0; what is not finite is above all
fn key_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) >= 0x7f800000u) { return 0xffffffffu; }
  if (bits == 0x80000000u) { return bits; }
  return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}`,
  main: `
let row = group.x + group.y * groups.x;
if (row >= params.rows) { return; }
var most = 0u;
var place = params.columns;
for (var i = lane; i < params.columns; i += ${LANES}u) {
  let key = key_of(x[row * params.columns + i]);
  if (key > most) {
    most = key;
    place = select(i, params.columns, key == 0xffffffffu);
  }
}
keys[lane] = most;
places[lane] = place;
for (var half = ${LANES / 2}u; half > 0u; half >>= 1u) {
  workgroupBarrier();
  if (lane < half) {
    let key = keys[lane + half];
    let other = places[lane + half];
    if (key > keys[lane] || (key == keys[lane] && other < places[lane])) {
      keys[lane] = key;
      places[lane] = other;
    }
  }
}
if (lane == 0u) { y[row] = places[0]; }`,
  grid: ({ rows }) => foldedGrid(rows),
})
