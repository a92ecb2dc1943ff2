// One layer: what it is and costs, its channels as pictures, its weights, and what a standard convolution would cost.

import { frame, makeScale, paint, pointAt, rangeOf } from "./colours.js";
import { announce, exact, field, find, grouped, make, percent, short, sizes } from "./dom.js";
import { WeightsView } from "./weights.js";

const PER_PAGE = 64; // channels, and as many squares of SIDE pixels
const SIDE = 96;
const GAP = 2;
const LEGIBLE = 8; // pixels that a value of a map of one row is large at least

function zoomOf(height, width) {
  const fitting = Math.floor(SIDE / Math.max(height, width));
  return Math.max(height === 1 ? LEGIBLE : 1, Math.min(24, fitting));
}

function countPerPage(height, width) {
  if (height > 1) return PER_PAGE;
  return Math.max(1, Math.min(PER_PAGE, Math.floor((PER_PAGE * SIDE ** 2) / (width * zoomOf(height, width) ** 2))));
}

export class LayerView {
  constructor(state) {
    this.state = state;
    this.scale = "layer";
    this.position = [0, 0, 0];
  }

  // Show a layer, its values when they are there: `refresh`.
  open(layer) {
    this.layer = layer;
    this.first = 0;
    this.position = [0, 0, 0];
    this.body = find("layer-body");
    delete this.body.dataset.layer;
    this.map = null;
    find("layer-title").textContent = `4. A layer: ${layer.name}`;
    this.facts = make("dl", { class: "facts" });
    this.grid = make("canvas", { tabindex: "0", role: "img", class: "crisp grid" });
    this.readout = make("p", { class: "readout" }, " ");
    this.bar = make("canvas", { width: 256, height: 12, role: "img", class: "crisp" });
    this.ends = make("p", { class: "ends" });
    this.weightsBody = make("div", {});
    this.weightsView = null;
    this.costs = make("div", {});
    this.body.replaceChildren(
      this.facts,
      make("h3", {}, "Channels"),
      this.makeTools(),
      this.grid,
      make("div", { class: "bar" }, this.bar, this.ends),
      this.readout,
      this.weightsBody,
      this.costs,
    );
    this.listen();
    this.readout.textContent = "This layer is being computed.";
  }

  close() {
    this.layer = null;
    this.map = null;
    delete find("layer-body").dataset.layer;
    find("layer-title").textContent = "4. A layer";
    find("layer-body").replaceChildren(make("p", {}, "No layer is open."));
  }

  makeTools() {
    const scale = make(
      "select",
      { name: "scale", onchange: (event) => this.rescale(event.target.value) },
      make("option", { value: "layer" }, "one for the layer"),
      make("option", { value: "channel" }, "one per channel"),
    );
    scale.value = this.scale;
    const [count, height, width] = this.layer.shape;
    this.pages = make("span", { class: "note" });
    this.perPage = countPerPage(height, width);
    const turn = (step) => {
      if (!this.map) return;
      const [row, column] = this.position,
        first = this.first + step * this.perPage;
      if (first >= 0 && first < count) this.show([row, column, first]);
    };
    return make(
      "div",
      { class: "row" },
      field("colour scale", scale),
      count > this.perPage ? make("button", { type: "button", onclick: () => turn(-1) }, "Previous channels") : null,
      count > this.perPage ? make("button", { type: "button", onclick: () => turn(1) }, "Next channels") : null,
      this.pages,
    );
  }

  rescale(name) {
    this.scale = name;
    this.drawGrid();
  }

  // The layer's values are there, or are others than before.
  async refresh() {
    if (!this.layer) return;
    const { name } = this.layer;
    const [map, weights, window] = await Promise.all(
      ["map", "weights", "window"].map((call) => this.state.ask(call, { name })),
    );
    if (this.layer?.name !== name || !map) return;
    const isFirst = !this.map;
    Object.assign(this, { map, window });
    this.writeFacts();
    this.show(this.clamp(this.position), true);
    if (isFirst) this.readout.textContent = " "; // until a value is pointed at
    if (weights) {
      this.weightsView ??= new WeightsView(this.state, this.layer, this.weightsBody, weights);
      this.weightsView.show(weights);
    }
    this.showCosts();
    this.body.dataset.layer = name;
  }

  // The place nearest to a position that this layer has.
  clamp(position) {
    const [channels, height, width] = this.map.shape;
    return position.map((at, axis) => Math.max(0, Math.min(at, [height, width, channels][axis] - 1)));
  }

  writeFacts() {
    const { layer, window } = this,
      own = this.state.measured.get(layer.name),
      sides = this.state.fields.get(layer.name);
    const rows = [
      ["Operation", layer.kind],
      ["Output, channels×height×width", sizes(this.map.shape)],
    ];
    if (window && window.kernel[0] * window.kernel[1] > 1) {
      rows.push(["Window", `${sizes(window.kernel)}, stride ${window.stride}, dilation ${window.dilation}`]);
      rows.push([
        "Padding: top, bottom, left, right",
        [window.top, window.bottom, window.left, window.right].join(", "),
      ]);
    }
    rows.push(["Parameters", grouped(layer.parameters)], ["Multiply-adds", grouped(layer.multiplyAdds)]);
    rows.push(["Receptive field", sides ? `${sides.height.size}×${sides.width.size} pixels` : "the whole picture"]);
    if (layer.microseconds !== null) {
      const others = layer.step.filter((name) => name !== layer.name);
      const together = others.length ? `, together with ${others.join(", ")}` : "";
      rows.push(["Measured time, on one thread", `${layer.microseconds.toFixed(1)} µs${together}`]);
    }
    if (own) {
      rows.push(
        ["Values", `${short(own.minimum)} to ${short(own.maximum)}, mean ${short(own.mean)}`],
        ["Zeros", percent(own.zeros)],
      );
      if (own.limited !== null)
        rows.push([this.layer.stands ? "Cut off by the activation" : "Cut off at 6", percent(own.limited)]);
      const same =
        { true: "the same bits, all of them", false: "other bits: please report this" }[own.isSame] ?? "changed by you";
      if (!layer.note) rows.push(["Beside the engine", same]);
    }
    if (layer.stands) {
      rows.push(["A byte stands for", `${exact(layer.stands.scale)} × (byte − ${layer.stands.zero})`]);
    }
    if (layer.note) rows.push(["Note", layer.note]);
    this.facts.replaceChildren(...rows.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]));
  }

  // Where the channels' pictures stand. A map of one row, which would be a strip, goes on in further lines.
  layOut() {
    const [channels, height, width] = this.map.shape;
    const shown = Math.min(this.perPage, channels - this.first),
      zoom = zoomOf(height, width);
    const space = Math.min(2800, Math.max(280, this.body.clientWidth || 960));
    const line = height === 1 ? Math.min(width, Math.floor(space / zoom)) : width,
      lines = height * Math.ceil(width / line);
    const gap = lines > height ? 3 * GAP : GAP, // of many lines it must be seen where a channel ends
      cell = line * zoom + GAP,
      columns = Math.max(1, Math.min(shown, Math.floor(space / cell)));
    return { shown, zoom, line, columns, cell, tall: lines * zoom + gap, rows: Math.ceil(shown / columns) };
  }

  drawGrid() {
    if (!this.map) return;
    const { map, grid } = this,
      [channels, height, width] = map.shape,
      plan = (this.plan = this.layOut());
    Object.assign(grid, { width: plan.columns * plan.cell - GAP, height: plan.rows * plan.tall - GAP });
    const zero = this.layer.stands?.zero ?? 0; // bytes have the colours of what they stand for
    const scaleOf = (...range) =>
      makeScale(this.state.document.scales, ...rangeOf(map.values, ...range).map((value) => value - zero));
    const context = grid.getContext("2d", { willReadFrequently: true }),
      whole = scaleOf();
    for (let k = 0; k < plan.shown; k++) {
      const channel = this.first + k;
      const scale = this.scale === "layer" ? whole : scaleOf(channel, channels);
      const [left, top] = this.corner(channel);
      for (let from = 0; from < width; from += plan.line) {
        paint(
          context,
          left,
          top + (from / plan.line) * plan.zoom,
          height,
          Math.min(plan.line, width - from),
          plan.zoom,
          (row, column) => scale.of(map.values[(row * width + from + column) * channels + channel] - zero),
        );
      }
    }
    this.pages.textContent = `channels ${this.first} to ${this.first + plan.shown - 1} of ${channels}`;
    grid.setAttribute(
      "aria-label",
      `${this.layer.name}: ${plan.shown} channels as pictures. Arrow keys move, Page Up and Page Down change the ` +
        "channel, Enter writes the value out.",
    );
    grid.dataset.plan = JSON.stringify(plan);
    this.plain = context.getImageData(0, 0, grid.width, grid.height); // without the cursor
    this.drawBar(whole, zero);
    this.markCursor();
  }

  // The ends are numbers of the map: bytes of a network of bytes, at the places of the scale around their zero.
  drawBar(scale, zero) {
    const context = this.bar.getContext("2d");
    paint(context, 0, 0, 12, 256, 1, (row, column) =>
      scale.of(scale.start + ((scale.end - scale.start) * column) / 255),
    );
    const text =
      this.scale === "layer" ? [scale.start, scale.end].map((end) => short(end + zero)) : ["each channel's least", "its greatest"];
    this.ends.replaceChildren(...text.map((end) => make("span", {}, end)));
    this.bar.setAttribute("aria-label", `Colour bar from ${text[0]} to ${text[1]}`);
  }

  corner(channel) {
    const k = channel - this.first;
    return [(k % this.plan.columns) * this.plan.cell, Math.floor(k / this.plan.columns) * this.plan.tall];
  }

  markCursor() {
    const [row, column, channel] = this.position;
    if (channel < this.first || channel >= this.first + this.plan.shown) return;
    const [left, top] = this.corner(channel),
      { zoom, line } = this.plan;
    const [x, y] = [left + (column % line) * zoom, top + (row + Math.floor(column / line)) * zoom];
    frame(this.grid.getContext("2d"), x, y, zoom);
  }

  listen() {
    const { grid } = this;
    const under = (event) => {
      if (!this.map) return null;
      const [x, y] = pointAt(grid, event),
        { plan } = this,
        [, height, width] = this.map.shape;
      const k = Math.floor(y / plan.tall) * plan.columns + Math.min(plan.columns - 1, Math.floor(x / plan.cell));
      const across = Math.floor((x % plan.cell) / plan.zoom),
        down = Math.floor((y % plan.tall) / plan.zoom),
        isFolded = plan.line < width;
      const [row, column] = isFolded ? [0, down * plan.line + across] : [down, across];
      const isThere = across >= 0 && across < plan.line && row >= 0 && row < height && column < width;
      return k >= 0 && k < plan.shown && isThere
        ? [row, column, this.first + k]
        : null;
    };
    grid.onpointermove = (event) => {
      const place = under(event);
      if (place) this.read(place);
    };
    grid.onclick = (event) => {
      const place = under(event);
      if (place) this.state.go(this.layer.name, place);
    };
    grid.onkeydown = (event) => this.step(event);
  }

  step(event) {
    if (!this.map) return;
    const steps = {
      ArrowUp: [-1, 0, 0],
      ArrowDown: [1, 0, 0],
      ArrowLeft: [0, -1, 0],
      ArrowRight: [0, 1, 0],
      PageUp: [0, 0, -1],
      PageDown: [0, 0, 1],
    };
    if (event.key === "Enter") this.state.go(this.layer.name, this.position);
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    this.show(this.clamp(this.position.map((at, axis) => at + step[axis])));
    announce(this.readout.textContent);
  }

  // Move the cursor to a value, and turn to its channel; `isNew` where the map is.
  show(position, isNew = false) {
    this.position = position;
    if (!this.map) return;
    const page = Math.floor(position[2] / this.perPage) * this.perPage;
    if (page === this.first && !isNew) {
      this.grid.getContext("2d").putImageData(this.plain, 0, 0);
      this.markCursor();
    } else {
      this.first = page;
      this.drawGrid();
    }
    this.read(position);
  }

  read([row, column, channel]) {
    const [channels, , width] = this.map.shape,
      value = this.map.values[(row * width + column) * channels + channel];
    this.readout.textContent = `row ${row}, column ${column}, channel ${channel}: ${exact(value)}`;
  }

  // A standard convolution beside a depthwise one and the pointwise one after it, for the same maps.
  showCosts() {
    const costs = this.state.document.separable?.find(
      (each) => each.depthwise === this.layer.name || each.pointwise === this.layer.name,
    );
    if (!costs) {
      this.costs.replaceChildren();
      return;
    }
    const rows = [
      ["multiply-adds", "multiplyAdds", grouped],
      ["parameters", "parameters", grouped],
      ["time", "microseconds", (value) => `${value.toFixed(1)} µs`],
    ].filter(([, key]) => costs.standard[key] && costs.separable[key]);
    this.costs.replaceChildren(
      make("h3", {}, "What if it were a standard convolution?"),
      make(
        "p",
        { class: "note" },
        `${costs.depthwise} and ${costs.pointwise} together, beside one ${costs.kernel}×${costs.kernel} convolution `,
        `from the same map to the same shape. ${costs.timing}`,
      ),
      make(
        "div",
        { class: "bars" },
        rows.map(([label, key, write]) =>
          ["standard", "separable"].map((which) => {
            const bar = make("span", { class: `fill ${which}` });
            bar.style.width = `${(100 * costs[which][key]) / Math.max(costs.standard[key], costs.separable[key])}%`;
            return make(
              "div",
              { class: "bar-row" },
              make("span", {}, `${label}, ${which}`),
              make("span", { class: "track" }, bar),
              make("span", {}, write(costs[which][key])),
            );
          }),
        ),
      ),
    );
  }
}
