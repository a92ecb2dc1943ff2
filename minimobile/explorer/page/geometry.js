// Windows: padding, output sizes and receptive fields. A padding is "SAME", "VALID" or [[top, bottom], [left, right]].

export function padAmounts(size, kernel, stride, dilation, padding) {
  if (padding === "VALID") return [0, 0];
  if (padding !== "SAME") return padding;
  const reach = (kernel - 1) * dilation + 1;
  const total = Math.max((Math.ceil(size / stride) - 1) * stride + reach - size, 0);
  return [Math.floor(total / 2), total - Math.floor(total / 2)];
}

// The window of a kernel [height, width] over a map of height x width.
export function slide(height, width, kernel, stride, dilation, padding) {
  const [rows, columns] = [height, width].map((size, axis) => {
    const own = typeof padding === "string" ? padding : padding[axis];
    const [before, after] = padAmounts(size, kernel[axis], stride, dilation, own);
    const reach = (kernel[axis] - 1) * dilation + 1;
    return { before, after, count: Math.floor((before + size + after - reach) / stride) + 1 };
  });
  return {
    kernel,
    stride,
    dilation,
    height,
    width,
    top: rows.before,
    left: columns.before,
    bottom: rows.after,
    right: columns.after,
    outHeight: rows.count,
    outWidth: columns.count,
  };
}

// A receptive field along each axis: value i depends on `size` pixels from `start + i * step` on; null is everything.
export const PIXEL = { height: { size: 1, step: 1, start: 0 }, width: { size: 1, step: 1, start: 0 } };

export function widenField(field, window) {
  if (field === null) return null;
  const widen = (reach, kernel, before) => ({
    size: reach.size + (kernel - 1) * window.dilation * reach.step,
    step: reach.step * window.stride,
    start: reach.start - before * reach.step,
  });
  return {
    height: widen(field.height, window.kernel[0], window.top),
    width: widen(field.width, window.kernel[1], window.left),
  };
}

export function joinFields(fields) {
  if (fields.includes(null)) return null;
  const join = (axis) => {
    const start = Math.min(...fields.map((field) => field[axis].start));
    const end = Math.max(...fields.map((field) => field[axis].start + field[axis].size));
    return { size: end - start, step: fields[0][axis].step, start };
  };
  return { height: join("height"), width: join("width") };
}
