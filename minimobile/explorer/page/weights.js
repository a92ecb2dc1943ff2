// The weights of a layer as pictures, a tile for every output, and changing one of them.

import { frame, makeScale, paint, pointAt, rangeOf } from "./colours.js";
import { announce, entries, exact, float32Input, isRight, make, numberInput, short } from "./dom.js";

// Of one layer, and made when its weights are known. They may change, their shape does not: so the picture, the place
// that is read in it, the focus and the editor stay when a layer is computed anew.
export class WeightsView {
  constructor(state, layer, body, weights) {
    this.state = state;
    const outputs = weights.bias.length,
      count = weights.folded.length / outputs;
    const tall = weights.kernelHeight,
      wide = count / tall; // a kernel is a tile: its rows, and in them all inputs
    const perRow = Math.min(outputs, Math.max(1, Math.round(Math.sqrt((4 * outputs * (tall + 1)) / (wide + 1)))));
    Object.assign(this, { outputs, count, tall, wide, perRow });
    this.canvas = make("canvas", { class: "crisp weights", role: "img", tabindex: "0" });
    this.note = make("p", { class: "note" });
    this.readout = make("p", { class: "readout" }, " ");
    this.place = null; // that is read: an output and a term
    this.editor = state.canEdit ? makeWeightEditor(state, layer, weights) : null;
    this.listen();
    body.replaceChildren(
      ...[make("h3", {}, "Weights"), this.note, this.canvas, this.readout, this.editor?.element].filter(Boolean),
    );
  }

  show(weights) {
    this.weights = weights;
    this.draw();
    if (this.place) this.read(this.place);
    this.editor?.fill(weights);
  }

  // The output and term whose square is at a row and a column.
  find(row, column) {
    const { outputs, tall, wide, perRow } = this;
    const output = Math.floor(row / (tall + 1)) * perRow + Math.floor(column / (wide + 1)),
      ky = row % (tall + 1),
      x = column % (wide + 1);
    return output < outputs && ky < tall && x < wide ? { output, term: ky * wide + x } : null;
  }

  valueAt({ output, term }) {
    return this.weights.folded[output * this.count + term];
  }

  // The row and column of that square.
  corner({ output, term }) {
    const { tall, wide, perRow } = this;
    const down = Math.floor(output / perRow) * (tall + 1),
      right = (output % perRow) * (wide + 1);
    return [down + Math.floor(term / wide), right + (term % wide)];
  }

  draw() {
    const { canvas, outputs, count, tall, wide, perRow } = this;
    const [height, width] = [Math.ceil(outputs / perRow) * (tall + 1), perRow * (wide + 1)];
    this.zoom = Math.max(1, Math.min(12, Math.floor(960 / width)));
    Object.assign(canvas, { width: width * this.zoom, height: height * this.zoom });
    const [low, high] = rangeOf(this.weights.folded),
      scale = makeScale(this.state.document.scales, Math.min(low, -1e-30), high);
    const gap = [128, 128, 128];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    paint(context, 0, 0, height, width, this.zoom, (row, column) => {
      const found = this.find(row, column);
      return found ? scale.of(this.valueAt(found)) : gap;
    });
    this.plain = context.getImageData(0, 0, canvas.width, canvas.height); // without the place that is read
    canvas.setAttribute(
      "aria-label",
      `Weights of ${outputs} outputs, ${count} each, from ${short(low)} to ${short(high)}. ` +
        "Left and right arrow keys read the terms of an output, up and down those of others.",
    );
    this.note.textContent =
      `A tile per output channel, ${count} weight${count > 1 ? "s" : ""} each, as they are computed with: ` +
      `${short(low)} (blue) to ${short(high)} (orange).`;
  }

  listen() {
    this.canvas.onpointermove = (event) => {
      const [x, y] = pointAt(this.canvas, event).map((at) => Math.floor(at / this.zoom)),
        found = this.find(y, x);
      if (found) this.read(found);
    };
    this.canvas.onkeydown = (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step) return;
      event.preventDefault();
      const within = (at, size) => Math.min(size - 1, Math.max(0, at));
      const { output, term } = this.place ?? { output: 0, term: 0 };
      this.read({ output: within(output + step[0], this.outputs), term: within(term + step[1], this.count) });
      announce(this.readout.textContent);
    };
  }

  read(place) {
    const context = this.canvas.getContext("2d"),
      [row, column] = this.corner(place);
    this.place = place;
    context.putImageData(this.plain, 0, 0);
    frame(context, column * this.zoom, row * this.zoom, this.zoom);
    this.readout.textContent = `output ${place.output}, term ${place.term}: ${exact(this.valueAt(place))}`;
  }
}

// An element to change a weight with, and what fills in the value that the weight has.
function makeWeightEditor(state, layer, { shape }) {
  const inputs = ["output", "input", "ky", "kx"].map((name, axis) => [
    name,
    numberInput({ min: 0, max: shape[axis] - 1, step: 1, value: 0, name: `weight ${name}` }),
  ]);
  const value = float32Input({ name: "weight value" });
  const place = () => inputs.map(([, input]) => Number(input.value));
  let values;
  const show = () => {
    if (!inputs.every(([, input]) => isRight(input))) return;
    value.value = exact(values[place().reduce((at, index, axis) => at * shape[axis] + index, 0)]);
  };
  for (const [, input] of inputs) input.onchange = show;
  const set = () => state.change("setWeight", { name: layer.name, position: place(), value: Number(value.value) });
  const element = make(
    "details",
    {},
    make("summary", {}, "Change a weight of the file"),
    entries([...inputs, ["value", value]], "Set the weight", set),
  );
  const fill = (weights) => {
    ({ values } = weights);
    show();
  };
  return { element, fill };
}
