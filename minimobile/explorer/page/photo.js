// The photograph at every step, with the numbers of the pixel under the pointer; and changing a pixel.

import { paint, pointAt, rangeOf } from "./colours.js";
import { announce, entries, exact, find, float32Input, isRight, make, numberInput, setSize, sizes } from "./dom.js";

export class Photograph {
  constructor(state) {
    this.state = state;
    this.stages = state.document.photo.stages.map((stage) => this.addStage(stage));
    this.input = this.stages.at(-1);
    this.addEditor();
  }

  addStage(stage) {
    const canvas = make("canvas", { tabindex: "0", role: "img", class: "crisp" });
    const readout = make("p", { class: "readout" }, " ");
    const figure = make(
      "figure",
      {},
      make("h3", {}, stage.title),
      canvas,
      make("figcaption", {}, make("span", { class: "size" }), " ", stage.text),
      readout,
    );
    find("stages").append(figure);
    const own = { ...stage, canvas, readout, figure, row: 0, column: 0 };
    if (!stage.isInput) this.draw(own, this.state.pictures(stage.pixels));
    const move = (row, column) => {
      const [height, width] = own.shape;
      own.row = Math.min(height - 1, Math.max(0, row));
      own.column = Math.min(width - 1, Math.max(0, column));
      this.read(own);
    };
    canvas.onpointermove = (event) => {
      const [x, y] = pointAt(canvas, event);
      move(Math.floor(y), Math.floor(x));
    };
    canvas.onclick = () => own.isInput && this.choose(own.row, own.column);
    canvas.onkeydown = (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (event.key === "Enter" && own.isInput) this.choose(own.row, own.column);
      if (!step || !own.shape) return;
      event.preventDefault();
      move(own.row + step[0], own.column + step[1]);
      announce(own.readout.textContent);
    };
    return own;
  }

  // Show a map {values, shape: [height, width, channels]} in a stage.
  draw(stage, map) {
    const [height, width, channels] = map.shape;
    Object.assign(stage, { values: map.values, shape: [height, width], channels });
    setSize(stage.canvas, width, height);
    const [low, high] = rangeOf(map.values);
    const isBytes = low >= 0 && high > 1.001 && high <= 255;
    const [from, reach] = isBytes ? [0, 255] : [Math.min(low, -1e-9), Math.max(high - low, 1e-9)];
    const byte = (value) => ((value - (isBytes ? 0 : from)) / reach) * 255;
    if (!stage.reduced) {
      paint(stage.canvas.getContext("2d"), 0, 0, height, width, 1, (row, column) => {
        const at = (row * width + column) * channels;
        return [0, 1, 2].map((c) => byte(map.values[at + Math.min(c, channels - 1)]));
      });
    }
    const whole = stage.height ? [stage.height, stage.width] : [height, width];
    const note = stage.factor > 1 ? `, one pixel in ${stage.factor} shown` : "";
    stage.figure.querySelector(".size").textContent = `${sizes(whole)} pixels${note}.`;
    stage.canvas.setAttribute("aria-label", `${stage.title}: ${sizes(whole)} pixels. Arrow keys read single pixels.`);
  }

  read(stage) {
    const { row, column, values, channels, factor = 1 } = stage,
      at = (row * stage.shape[1] + column) * channels;
    const numbers = Array.from({ length: channels }, (_, c) => exact(values[at + c])).join(", ");
    stage.readout.textContent = `row ${row * factor}, column ${column * factor}: ${numbers}`;
  }

  // Show what the network reads, as it is now: a map with shape [channels, height, width].
  showInput(map) {
    const [channels, height, width] = map.shape;
    this.draw(this.input, { values: map.values, shape: [height, width, channels] });
    this.choose(this.row ?? Math.floor(height / 2), this.column ?? Math.floor(width / 2));
  }

  // Mark the part of the photograph that a value depends on: {top, left, height, width} in pixels of the input.
  mark(part) {
    const { canvas, values, shape, channels } = this.input;
    if (!shape) return;
    this.draw(this.input, { values, shape: [...shape, channels] });
    if (part === null) return;
    const context = canvas.getContext("2d"),
      thick = Math.max(1, Math.round(Math.max(...shape) / 150));
    for (const [colour, inset] of [
      ["#000000", 0],
      ["#ffd84d", thick],
    ]) {
      context.strokeStyle = colour;
      context.lineWidth = thick;
      context.strokeRect(
        part.left + inset - thick / 2,
        part.top + inset - thick / 2,
        part.width - 2 * inset + thick,
        part.height - 2 * inset + thick,
      );
    }
  }

  addEditor() {
    const [channels, height, width] = this.state.document.input.shape;
    this.places = [
      ["row", height],
      ["column", width],
    ].map(([name, size]) => numberInput({ min: 0, max: size - 1, step: 1, name: `pixel ${name}` }));
    this.numbers = Array.from({ length: channels }, (_, c) => float32Input({ name: `channel ${c}` }));
    const names = channels === 3 ? ["red", "green", "blue"] : this.numbers.map((_, c) => `channel ${c}`);
    const fields = [
      ["row", this.places[0]],
      ["column", this.places[1]],
      ...this.numbers.map((input, c) => [names[c], input]),
    ];
    find("pixel-edit").append(
      make("h3", {}, "Change a pixel of what the network reads"),
      entries(fields, "Set the pixel", () => this.apply()),
    );
    for (const input of this.places)
      input.onchange = () => {
        if (this.places.every(isRight)) this.choose(...this.places.map((place) => Number(place.value)));
      };
  }

  choose(row, column) {
    if (!this.input.shape) return;
    const [height, width] = this.input.shape;
    this.row = Math.min(height - 1, Math.max(0, Math.trunc(row) || 0));
    this.column = Math.min(width - 1, Math.max(0, Math.trunc(column) || 0));
    this.places[0].value = this.row;
    this.places[1].value = this.column;
    const at = (this.row * width + this.column) * this.input.channels;
    this.numbers.forEach((input, c) => (input.value = exact(this.input.values[at + c])));
  }

  async apply() {
    for (const [channel, input] of this.numbers.entries()) {
      await this.state.change("setPixel", { position: [this.row, this.column, channel], value: Number(input.value) });
    }
    this.showInput(await this.state.ask("map", { name: this.state.document.input.name }));
  }
}
