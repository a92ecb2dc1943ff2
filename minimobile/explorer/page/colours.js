// Numbers as colours: dark blue to yellow from zero up, or blue, white and orange on both sides of zero.

const NOT_FINITE = [255, 0, 255];

// A scale over values from `low` to `high`, and the colour of a value on it.
export function makeScale(scales, low, high) {
  const isSigned = low < 0,
    end = isSigned ? Math.max(-low, high) : high,
    start = isSigned ? -end : low;
  const colours = isSigned ? scales.diverging : scales.sequential,
    width = end > start ? end - start : 1;
  const last = colours.length - 1;
  return {
    low,
    high,
    start,
    end,
    colours,
    of: (value) =>
      Number.isFinite(value)
        ? colours[Math.round(Math.min(1, Math.max(0, (value - start) / width)) * last)]
        : NOT_FINITE,
  };
}

export function rangeOf(values, from = 0, step = 1) {
  let low = Infinity,
    high = -Infinity;
  for (let k = from; k < values.length; k += step) {
    const value = Number(values[k]);
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}

// Draw height x width colours, each `zoom` pixels large, with their corner at (left, top).
export function paint(context, left, top, height, width, zoom, colourAt) {
  const image = context.createImageData(width * zoom, height * zoom);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const colour = colourAt(row, column);
      for (let dy = 0; dy < zoom; dy++) {
        let at = 4 * ((row * zoom + dy) * width * zoom + column * zoom);
        for (let dx = 0; dx < zoom; dx++, at += 4) {
          image.data[at] = colour[0];
          image.data[at + 1] = colour[1];
          image.data[at + 2] = colour[2];
          image.data[at + 3] = 255;
        }
      }
    }
  }
  context.putImageData(image, left, top);
}

// Frame a square of `zoom` pixels with its corner at (x, y), visibly on any colour; a small one as if it were larger.
export function frame(context, x, y, zoom) {
  const side = Math.max(zoom, 5),
    move = (side - zoom) / 2;
  context.lineWidth = 1;
  for (const [colour, grow] of [
    ["#000000", 2],
    ["#ffffff", 1],
  ]) {
    context.strokeStyle = colour;
    context.strokeRect(x - move - grow + 0.5, y - move - grow + 0.5, side + 2 * grow - 1, side + 2 * grow - 1);
  }
}

// The pixel of a canvas under the pointer, in the canvas's own pixels. Divided last: a whole pixel stays whole.
export function pointAt(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * canvas.width) / box.width,
    ((event.clientY - box.top) * canvas.height) / box.height,
  ];
}
