// The weights of a layer as pictures, a tile for every output, and changing one of them.

import { makeScale, paint, pointAt, rangeOf } from "./colours.js";
import { announce, entries, exact, float32Input, isRight, make, numberInput, refill, short } from "./dom.js";

export function showWeights(state, layer, body, weights) {
  if (!weights) {
    body.replaceChildren();
    return;
  }
  const outputs = weights.bias.length,
    count = weights.folded.length / outputs;
  const tall = weights.kernelHeight,
    wide = count / tall; // a kernel is a tile: its rows, and in them all inputs
  const canvas = make("canvas", { class: "crisp weights", role: "img", tabindex: "0" });
  const perRow = Math.min(outputs, Math.max(1, Math.round(Math.sqrt((4 * outputs * (tall + 1)) / (wide + 1)))));
  const rows = Math.ceil(outputs / perRow),
    zoom = Math.max(1, Math.min(12, Math.floor(960 / (perRow * (wide + 1)))));
  const [height, width] = [rows * (tall + 1), perRow * (wide + 1)];
  Object.assign(canvas, { width: width * zoom, height: height * zoom });
  const [low, high] = rangeOf(weights.folded),
    scale = makeScale(state.document.scales, Math.min(low, -1e-30), high);
  const find = (row, column) => {
    const output = Math.floor(row / (tall + 1)) * perRow + Math.floor(column / (wide + 1)),
      ky = row % (tall + 1),
      x = column % (wide + 1);
    return output < outputs && ky < tall && x < wide ? { output, term: ky * wide + x } : null;
  };
  const gap = [128, 128, 128];
  paint(canvas.getContext("2d"), 0, 0, height, width, zoom, (row, column) => {
    const found = find(row, column);
    return found ? scale.of(weights.folded[found.output * count + found.term]) : gap;
  });
  canvas.setAttribute(
    "aria-label",
    `Weights of ${outputs} outputs, ${count} each, from ${short(low)} to ${short(high)}. ` +
      "Left and right arrow keys read the terms of an output, up and down those of others.",
  );
  const readout = make("p", { class: "readout" }, " ");
  let place = { output: 0, term: 0 };
  const read = (found) => {
    place = found;
    const value = weights.folded[found.output * count + found.term];
    readout.textContent = `output ${found.output}, term ${found.term}: ${exact(value)}`;
  };
  canvas.onpointermove = (event) => {
    const [x, y] = pointAt(canvas, event).map((at) => Math.floor(at / zoom)),
      found = find(y, x);
    if (found) read(found);
  };
  canvas.onkeydown = (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const within = (at, size) => Math.min(size - 1, Math.max(0, at));
    read({ output: within(place.output + step[0], outputs), term: within(place.term + step[1], count) });
    announce(readout.textContent);
  };
  refill(
    body,
    make("h3", {}, "Weights"),
    make(
      "p",
      { class: "note" },
      `A tile per output channel, ${count} weight${count > 1 ? "s" : ""} each, as they are computed with: `,
      `${short(low)} (blue) to ${short(high)} (orange).`,
    ),
    canvas,
    readout,
    state.canEdit ? makeWeightEditor(state, layer, weights, body.querySelector("details")) : "",
  );
}

// `before` is the editor of the same layer that this one takes the place of: it stays open, and at the same weight.
function makeWeightEditor(state, layer, weights, before) {
  const names = ["output", "input", "ky", "kx"];
  const inputs = names.map((name, axis) =>
    numberInput({
      min: 0,
      max: weights.shape[axis] - 1,
      step: 1,
      value: before?.querySelector(`[name="weight ${name}"]`).value ?? 0,
      name: `weight ${name}`,
    }),
  );
  const value = float32Input({ name: "weight value" });
  const place = () => inputs.map((input) => Number(input.value));
  const fill = () => {
    if (!inputs.every(isRight)) return;
    value.value = exact(weights.values[place().reduce((at, index, axis) => at * weights.shape[axis] + index, 0)]);
  };
  for (const input of inputs) input.onchange = fill;
  fill();
  const set = () => state.change("setWeight", { name: layer.name, position: place(), value: Number(value.value) });
  return make(
    "details",
    { open: before?.open },
    make("summary", {}, "Change a weight of the file"),
    entries([...inputs.map((input, axis) => [names[axis], input]), ["value", value]], "Set the weight", set),
  );
}
