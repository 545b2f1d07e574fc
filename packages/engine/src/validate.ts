import {
  type Expr,
  isFloat,
  numel,
  operands,
  type Problem,
  type Source,
  type SourceId,
  type Tensor,
} from '@polygraft/tensor'

type Sources = ReadonlyMap<SourceId, Source>

/**
 * What would keep `tensor` from being evaluated: reads of tensors that are not there, operands of unequal element
 * counts, rows out of range, arithmetic on integers or quantised types. Empty when it can be evaluated.
 * Every problem is listed, with the name of the output tensor.
 */
export function tensorProblems(name: string, tensor: Tensor, sources: Sources): Problem[] {
  const problems: Problem[] = []
  const report = (code: string, message: string, expected?: string, received?: string) =>
    problems.push({
      code,
      message,
      tensor: name,
      ...(expected ? { expected } : {}),
      ...(received ? { received } : {}),
    })
  const elements = elementsOf(tensor.expr)
  const wanted = numel(tensor.shape)
  if (elements !== undefined && elements !== wanted)
    report(
      'shape-mismatch',
      'The expression has another number of elements than the tensor',
      `${wanted}`,
      `${elements}`,
    )
  if (!isPassThrough(tensor, sources)) checkArithmetic(tensor.expr)
  return problems

  // Unknown (undefined) where a `random`, a `mask` or a broken read leaves it open.
  function elementsOf(expr: Expr): number | undefined {
    switch (expr.op) {
      case 'read': {
        const stored = sources.get(expr.source)?.tensors.get(expr.tensor)
        if (!stored) report('missing-tensor', `No tensor ${expr.tensor} in ${locationOf(expr.source)}`)
        return stored && numel(stored.shape)
      }
      case 'random':
      case 'mask':
        return undefined
      case 'literal':
        return Math.floor(unpaddedBytes(expr.f32) / 4)
      case 'concat':
        expr.args.forEach((arg, i) => {
          const size = elementsOf(arg)
          if (size !== undefined && size !== expr.sizes[i])
            report(
              'shape-mismatch',
              `Part ${i} has another size than declared`,
              `${expr.sizes[i]}`,
              `${size}`,
            )
        })
        return expr.sizes.reduce((sum, size) => sum + size, 0)
      case 'rows': {
        const size = elementsOf(expr.arg)
        const last = expr.runs.reduce((end, [start, count]) => Math.max(end, start + count), 0)
        if (size !== undefined && last * expr.width > size)
          report('rows-out-of-range', 'Rows past the end', `${size / expr.width} rows`, `row ${last - 1}`)
        return expr.runs.reduce((sum, [, count]) => sum + count, 0) * expr.width
      }
      case 'ranks': {
        const size = elementsOf(expr.arg)
        if (!(expr.width >= 1) || (size !== undefined && size % expr.width !== 0))
          report('shape-mismatch', 'Elements are no whole rows', `rows of ${expr.width}`, `${size} elements`)
        return size
      }
      case 'columns': {
        const size = elementsOf(expr.arg)
        if (expr.end > expr.width || (size !== undefined && size % expr.width !== 0))
          report(
            'columns-out-of-range',
            'The columns are not there',
            `${expr.width} columns in ${size} elements`,
            `${expr.begin} to ${expr.end}`,
          )
        return size === undefined ? undefined : (size / expr.width) * (expr.end - expr.begin)
      }
      case 'spread': {
        const size = elementsOf(expr.arg)
        if (size !== undefined && size !== expr.count)
          report(
            'shape-mismatch',
            'What is spread has another size than declared',
            `${expr.count}`,
            `${size}`,
          )
        return expr.count * expr.each * expr.times
      }
      case 'lowrank': {
        const { rows, rank, width } = expr
        for (const [name, factor, expected] of [
          ['up', expr.up, rows * rank],
          ['down', expr.down, rank * width],
        ] as const) {
          const size = elementsOf(factor)
          if (size !== undefined && size !== expected)
            report(
              'shape-mismatch',
              `A factor (${name}) has another size than declared`,
              `${expected}`,
              `${size}`,
            )
        }
        return rows * width
      }
      default: {
        const sizes = operands(expr)
          .map(elementsOf)
          .filter((size) => size !== undefined)
        const other = sizes.find((size) => size !== sizes[0])
        if (other !== undefined)
          report('shape-mismatch', `Operands of ${expr.op} differ in size`, `${sizes[0]}`, `${other}`)
        return sizes[0]
      }
    }
  }

  function checkArithmetic(expr: Expr): void {
    if (!isFloat(tensor.dtype))
      report(
        'not-a-float',
        'Arithmetic cannot be stored in this dtype',
        'F64, F32, F16 or BF16',
        tensor.dtype,
      )
    const seen = new Set<string>()
    const visit = (e: Expr): void => {
      if (e.op !== 'read') {
        for (const operand of operands(e)) visit(operand)
        return
      }
      const dtype = sources.get(e.source)?.tensors.get(e.tensor)?.dtype
      if (dtype === undefined || isFloat(dtype) || seen.has(`${e.source} ${e.tensor}`)) return
      seen.add(`${e.source} ${e.tensor}`)
      report(
        'not-a-float',
        `Arithmetic on ${e.tensor} of ${locationOf(e.source)}`,
        'F64, F32, F16 or BF16',
        dtype,
      )
    }
    visit(expr)
  }

  function locationOf(source: SourceId): string {
    return sources.get(source)?.location ?? `unknown source ${source}`
  }
}

/** Whether `tensor` is stored bytes of its own dtype, whole or gathered: then bits are copied and never decoded. */
export function isPassThrough(tensor: Tensor, sources: Sources): boolean {
  return storedDType(tensor.expr, sources) === tensor.dtype
}

/** The dtype in which all of `expr`'s elements lie in files, when it only reads and gathers; else undefined. */
export function storedDType(expr: Expr, sources: Sources): Tensor['dtype'] | undefined {
  switch (expr.op) {
    case 'read':
      return sources.get(expr.source)?.tensors.get(expr.tensor)?.dtype
    case 'rows':
    case 'columns':
    case 'spread':
      return storedDType(expr.arg, sources)
    case 'concat': {
      const dtypes = new Set(expr.args.map((arg) => storedDType(arg, sources)))
      return dtypes.size === 1 ? [...dtypes][0] : undefined
    }
    default:
      return undefined
  }
}

function unpaddedBytes(base64: string): number {
  const padding = base64.endsWith('==') ? 2 : base64.endsWith('=') ? 1 : 0
  return (base64.length / 4) * 3 - padding
}
