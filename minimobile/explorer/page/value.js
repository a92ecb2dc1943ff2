// One value: every term of the sum that made it, the blocks, the bias and the rest, to the last bit of the engine's.

import { bitsOf, countUlps, entries, exact, find, make, numberInput, refill, scroller } from "./dom.js";

export class ValueView {
  constructor(state) {
    this.state = state;
  }

  // Write a value out, unless it is not computed yet or another was asked for meanwhile. Until then nothing says what
  // is written out.
  async open(name, position) {
    const asked = (this.asked = {});
    delete find("value-body").dataset.at;
    const written = await this.state.ask("explain", { name, position });
    if (!written || asked !== this.asked) return;
    this.written = written;
    const layer = this.state.layer(name);
    find("value-title").textContent = `5. A value of ${name}`;
    this.state.mark(name, position);
    const hadFocus = find("value-body").contains(document.activeElement);
    refill(
      find("value-body"),
      this.makePlace(layer, position),
      this.writeResult(written),
      this.makeMoves(layer, position),
      make("h3", {}, written.isInteger ? "From the sum to the byte" : "From the sum to the value"),
      this.writeStages(written),
      make("h3", {}, `Terms: ${written.terms.count}`),
      this.writeTerms(written),
      this.writeUnfolded(written),
    );
    if (hadFocus && !find("value-body").contains(document.activeElement)) find("value").focus({ preventScroll: true });
    find("value-body").dataset.at = [name, ...position].join(" ");
  }

  close() {
    this.asked = null;
    delete find("value-body").dataset.at;
    find("value-title").textContent = "5. A value";
    find("value-body").replaceChildren(make("p", {}, "No value is chosen: click one in the layer's pictures."));
    this.state.photograph.mark(null);
  }

  makePlace(layer, position) {
    const [channels, height, width] = this.state.layerView.map.shape,
      limits = [height, width, channels];
    const inputs = ["row", "column", "channel"].map((name, axis) => [
      name,
      numberInput({ min: 0, max: limits[axis] - 1, step: 1, value: position[axis], name: `value ${name}` }),
    ]);
    return entries(inputs, "Write it out", () =>
      this.state.go(
        layer.name,
        inputs.map(([, input]) => Number(input.value)),
      ),
    );
  }

  writeResult(written) {
    const isSame =
      Object.is(written.value + 0, written.computed + 0) ||
      (written.value !== written.value && written.computed !== written.computed);
    const bits = written.isInteger ? "" : ` (bits ${bitsOf(written.value)})`;
    return make(
      "p",
      { class: "result" },
      make("strong", { id: "result" }, exact(written.value)),
      bits,
      isSame
        ? ": the same number as in the layer's map."
        : `: the map has ${exact(written.computed)}; please report this.`,
      written.meaning === undefined ? "" : ` It stands for ${exact(written.meaning)}.`,
    );
  }

  // Up to what this value is made of, and down to what is made of it.
  makeMoves(layer, position) {
    const button = (text, name, onclick) => make("button", { type: "button", name, onclick }, text);
    const up = button("To its largest term", "largest", () => this.openTerm(this.largest()));
    const readers = this.state.document.layers.filter((other) => other.inputs.includes(layer.name));
    const down = readers.map((reader, k) =>
      button(`Down to ${reader.name}`, `down ${k}`, () => this.openReader(reader, layer.name, position)),
    );
    return make("div", { class: "row" }, this.written.sources[0] === this.state.document.input.name ? null : up, down);
  }

  // Open the value of a layer whose window has this one in its middle, or is the nearest to that.
  async openReader(reader, name, [row, column, channel]) {
    const window = await this.state.ask("window", { name: reader.name });
    const [channels, height, width] = reader.shape,
      [first] = reader.nodes;
    const within = (at, size) => Math.min(size - 1, Math.max(0, at));
    const [joined] = reader.inputs,
      before = first.op === "concatenate" && joined !== name ? this.state.layer(joined).shape[0] : 0;
    let place = [within(row, height), within(column, width)];
    if (window && first.op === "resize_bilinear") {
      place = [Math.ceil((row * height) / window.height), Math.ceil((column * width) / window.width)];
    } else if (window) {
      const { kernel, stride, dilation, top, left, outHeight, outWidth } = window;
      const at = (index, start, size) => Math.floor((index + start - Math.floor(size / 2) * dilation) / stride);
      place = [within(at(row, top, kernel[0]), outHeight), within(at(column, left, kernel[1]), outWidth)];
    }
    this.state.go(reader.name, [...place, within(channel + before, channels)]);
  }

  largest() {
    const { product, read, count } = this.written.terms;
    let best = 0;
    for (let k = 1; k < count; k++) if (read[k] >= 0 && !(Math.abs(product[k]) <= Math.abs(product[best]))) best = k;
    return best;
  }

  openTerm(k) {
    const { place } = this.written.terms,
      source = this.written.sources[this.written.from ?? 0];
    if (source !== this.state.document.input.name && this.written.terms.read[k] >= 0) {
      this.state.go(source, [place[5 * k + 2], place[5 * k + 3], place[5 * k + 4]]);
    }
  }

  writeStages({ stages }) {
    const rows = stages.map((stage) =>
      make(
        "tr",
        { "data-stage": stage.name },
        make("th", { scope: "row" }, stage.name),
        make("td", { class: "number" }, stage.operand === null ? "" : exact(stage.operand)),
        make("td", { class: "number" }, exact(stage.value)),
      ),
    );
    return scroller(
      "The steps after the terms",
      make("table", { id: "stages-table" }, head("step", "number", "value after it"), make("tbody", {}, rows)),
    );
  }

  writeTerms({ terms, block, isInteger }) {
    const rows = [];
    for (let k = 0; k < terms.count; k++) {
      const [ky, kx, row, column, channel] = terms.place.subarray(5 * k, 5 * k + 5),
        isSkipped = terms.read[k] < 0;
      const isStart = k > 0 && k % block === 0;
      const where = make(
        "button",
        { type: "button", class: "link", tabindex: k ? "-1" : "0", onclick: () => this.openTerm(k) },
        `${row}, ${column}, ${channel}`,
      );
      const numbers = isSkipped
        ? ["outside", exact(terms.weight[k]), "skipped"]
        : [exact(terms.pixel[k]), exact(terms.weight[k]), exact9(terms.product[k])];
      rows.push(
        make(
          "tr",
          { class: isStart ? "start" : null, "data-skipped": isSkipped ? "yes" : null },
          make("td", {}, String(Math.floor(k / block))),
          make("td", {}, `${ky}, ${kx}`),
          make("td", {}, isSkipped ? `${row}, ${column}, ${channel}` : where),
          numbers.map((text) => make("td", { class: "number" }, text)),
          make("td", { class: "number" }, exact(terms.running[k])),
        ),
      );
    }
    const names = isInteger ? ["byte less its zero", "weight less its zero"] : ["pixel", "weight"];
    const table = make(
      "table",
      { id: "terms-table", onkeydown: walk },
      head("block", "ky, kx", "reads row, column, channel", ...names, "product", "sum so far"),
      make("tbody", {}, rows),
    );
    return scroller("Terms of the sum", table);
  }

  writeUnfolded({ unfolded }) {
    if (!unfolded) return "";
    const rows = [
      ["convolution with the weights of the file", unfolded.convolved],
      ["mean", unfolded.mean],
      ["variance", unfolded.variance],
      ["scale", unfolded.scale],
      ["shift", unfolded.shift],
      ["epsilon", unfolded.epsilon],
    ];
    const ulps = countUlps(unfolded.normalized, unfolded.before);
    return make(
      "details",
      {},
      make("summary", {}, "Before batch norm was folded"),
      make("p", {}, "(convolution − mean) × scale / √(variance + epsilon) + shift, in float64, rounded once:"),
      scroller(
        "Batch norm",
        make(
          "table",
          { id: "unfolded-table" },
          make(
            "tbody",
            {},
            rows.map(([name, value]) =>
              make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "number" }, exact(value))),
            ),
          ),
        ),
      ),
      make(
        "p",
        {},
        `gives ${exact(unfolded.normalized)}; folded, at this point, ${exact(unfolded.before)}: `,
        ulps ? `${ulps} float32 apart, which is what folding changes.` : "the same number.",
      ),
    );
  }
}

// A product of two float32 is exact in float64: shown to nine digits, for it is not rounded before it is added.
const exact9 = (value) => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(9))));

function head(...names) {
  return make(
    "thead",
    {},
    make(
      "tr",
      {},
      names.map((name) => make("th", { scope: "col" }, name)),
    ),
  );
}

// One button of the column is in the order of Tab; the arrow keys go to the others.
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.matches("button.link")) return;
  const all = [...event.currentTarget.querySelectorAll("button.link")],
    next = all[all.indexOf(event.target) + step];
  event.preventDefault();
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
