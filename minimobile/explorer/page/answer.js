// The answer: labels with bars, a mask over the photograph, or boxes with their anchors.

import { exponential, sigmoid } from "./curves.js";
import { field, find, make, percent, scroller, setSize, short } from "./dom.js";
import { paint } from "./colours.js";

export class Answer {
  constructor(state) {
    this.state = state;
    this.answer = state.document.answer;
    this.body = find("answer-body");
    const show = {
      classification: () => this.showLabels(this.answer.top),
      segmentation: () => this.showMask(),
      detection: () => this.showBoxes(),
    };
    (
      show[this.answer.task] ??
      (() => this.body.append("This network has no head: its answer are its last layer's values."))
    )();
  }

  // The network is computed, anew after a change.
  settle(outputs, isEdited) {
    if (!this.state.canEdit) return; // a network of integers may end in other numbers than logits: it has its answer
    if (this.answer.task === "classification") this.showLabels(this.rank(outputs[0].values));
    if (this.answer.task === "segmentation" && isEdited) this.remask(outputs[0]);
    if (this.answer.task === "detection" && this.note)
      this.note.textContent = isEdited ? "Boxes and scores are those of the run before your changes." : "";
  }

  // The ten likeliest classes: a softmax in float64, as the library's, or a sigmoid for each.
  rank(logits) {
    let greatest = -Infinity;
    for (const logit of logits) greatest = Math.max(greatest, logit);
    const weights = Array.from(logits, (logit) => exponential(logit - greatest)),
      total = exactSum(weights);
    const order = weights
      .map((_, index) => index)
      .sort((a, b) => logits[b] - logits[a] || a - b)
      .slice(0, 10);
    return order.map((index) => ({
      index,
      label: this.answer.labels[index] ?? `LABEL_${index}`,
      logit: logits[index],
      probability: this.answer.isMultiLabel ? sigmoid(logits[index]) : weights[index] / total,
    }));
  }

  showLabels(found) {
    this.body.replaceChildren(
      make(
        "ol",
        { class: "bars", id: "labels" },
        found.map(({ label, index, probability, logit }) => {
          const bar = make("span", { class: "fill separable" });
          bar.style.width = `${100 * probability}%`;
          return make(
            "li",
            { class: "bar-row" },
            make("bdi", { title: `class ${index}` }, label),
            make("span", { class: "track" }, bar),
            make("span", {}, `${(100 * probability).toFixed(2)} %, logit ${short(logit)}`),
          );
        }),
      ),
    );
  }

  showMask() {
    const photo = this.state.document.photo.stages[0],
      { values, shape } = this.state.pictures(photo.pixels);
    this.photo = { values, height: shape[0], width: shape[1] };
    this.mask = this.state.pictures(this.answer.mask);
    this.canvas = make("canvas", {
      class: "crisp answer",
      role: "img",
      "aria-label": "The photograph, each class in its colour",
    });
    setSize(this.canvas, shape[1], shape[0]);
    const slider = make("input", {
      type: "range",
      min: 0,
      max: 100,
      value: 60,
      name: "opacity",
      oninput: () => this.drawMask(Number(slider.value) / 100),
    });
    this.slider = slider;
    const shares = Object.entries(this.answer.shares).sort((a, b) => b[1] - a[1]);
    this.hidden = new Set();
    const legend = shares.map(([index, share]) => {
      const box = make("input", {
        type: "checkbox",
        checked: true,
        onchange: () => {
          this.hidden[box.checked ? "delete" : "add"](Number(index));
          this.drawMask(Number(slider.value) / 100);
        },
      });
      const patch = make("span", { class: "patch" });
      patch.style.background = `rgb(${this.answer.colours[index]})`;
      return make(
        "li",
        {},
        make("label", {}, box, patch, make("bdi", {}, this.answer.labels[index] ?? index), ` ${percent(share)}`),
      );
    });
    this.note = make("p", { class: "note" });
    this.body.replaceChildren(
      make("div", { class: "row" }, field("colours over the photograph", slider)),
      this.canvas,
      make("ul", { class: "legend", "aria-label": "Classes" }, legend),
      this.note,
    );
    this.drawMask(0.6);
  }

  drawMask(opacity) {
    const { values, height, width } = this.photo,
      { mask, hidden } = this,
      [tall, wide] = mask.shape;
    paint(this.canvas.getContext("2d"), 0, 0, height, width, 1, (row, column) => {
      const at = 3 * (row * width + column),
        pixel = [values[at], values[at + 1], values[at + 2]];
      const found = mask.values[Math.floor((row * tall) / height) * wide + Math.floor((column * wide) / width)];
      if (hidden.has(found)) return pixel;
      return pixel.map((value, c) => value + opacity * (this.answer.colours[found][c] - value));
    });
  }

  // After a change: the class of the largest logit, at the network's own resolution.
  remask({ values, shape: [channels, height, width] }) {
    const found = new Int32Array(height * width);
    for (let pixel = 0; pixel < found.length; pixel++) {
      for (let c = 1; c < channels; c++)
        if (values[pixel * channels + c] > values[pixel * channels + found[pixel]]) found[pixel] = c;
    }
    this.mask = { values: found, shape: [height, width] };
    const where = `the largest logit at each of ${height}×${width} places, not interpolated`;
    this.note.textContent = `After your change: ${where}. Shares are those before it.`;
    this.drawMask(Number(this.slider.value) / 100);
  }

  showBoxes() {
    const photo = this.state.document.photo.stages[0],
      { values, shape } = this.state.pictures(photo.pixels),
      { boxes } = this.answer;
    this.canvas = make("canvas", {
      class: "crisp answer",
      role: "img",
      "aria-label": `The photograph with ${boxes.length} boxes`,
    });
    setSize(this.canvas, shape[1], shape[0]);
    const opened = new Set(); // of none that is open, all are drawn
    const draw = () => {
      const context = this.canvas.getContext("2d");
      paint(context, 0, 0, shape[0], shape[1], 1, (row, column) => values.subarray(3 * (row * shape[1] + column)));
      boxes.forEach(
        (box, rank) => (!opened.size || opened.has(rank)) && this.drawBox(context, box, shape, opened.has(rank)),
      );
    };
    const list = boxes.map((box, rank) =>
      make(
        "li",
        {},
        make(
          "details",
          {
            ontoggle: (event) => {
              opened[event.target.open ? "add" : "delete"](rank);
              draw();
            },
          },
          make("summary", {}, make("bdi", {}, box.label), ` ${box.score.toFixed(3)}`),
          this.writeBox(box),
        ),
      ),
    );
    this.note = make("p", { class: "note" });
    const lead = boxes.length
      ? "Open a detection for its anchor (dashed) and each step to its box."
      : `Nothing scores more than ${this.answer.threshold}.`;
    this.body.replaceChildren(
      make("p", { class: "note" }, lead),
      this.canvas,
      make("ol", { class: "boxes" }, list),
      this.note,
    );
    draw();
  }

  drawBox(context, box, [height, width], isChosen) {
    const [tall, wide] = this.answer.photo,
      { xmin, ymin, xmax, ymax } = box.box;
    const outline = (left, top, right, bottom, colour, dash) => {
      context.setLineDash(dash);
      for (const [stroke, thick] of [
        ["#000000", 4],
        [colour, 2],
      ]) {
        context.strokeStyle = stroke;
        context.lineWidth = thick;
        context.strokeRect(left, top, right - left, bottom - top);
      }
      context.setLineDash([]);
    };
    outline(
      (xmin / wide) * width,
      (ymin / tall) * height,
      (xmax / wide) * width,
      (ymax / tall) * height,
      `rgb(${box.colour})`,
      [],
    );
    if (isChosen && box.written) {
      const [y, x, h, w] = box.written.anchor_box;
      outline((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height, "#ffffff", [5, 4]);
    }
  }

  writeBox({ written }) {
    if (!written)
      return make("p", {}, "This detector clips its boxes as TensorFlow does: its steps are not written out.");
    const [map, row, column, shape] = written.place;
    return make(
      "div",
      {},
      make(
        "p",
        {},
        `Anchor ${written.anchor}: map ${map}, row ${row}, column ${column}, shape ${shape}. `,
        `Logit ${short(written.logit)}.`,
      ),
      scroller(
        "Steps to the box",
        make(
          "table",
          {},
          make(
            "tbody",
            {},
            written.steps.map((step) =>
              make(
                "tr",
                {},
                make("th", { scope: "row" }, step.name),
                [step.formula, String(step.value)].map((text) => make("td", { class: "number" }, text)),
              ),
            ),
          ),
        ),
      ),
      make(
        "p",
        {},
        written.agrees
          ? "The steps give the run's box, to the bit."
          : "The steps and the run differ: please report this.",
      ),
    );
  }
}

// The exact sum, rounded once, of numbers of any size (Shewchuk 1997, as Python's math.fsum does it).
export function exactSum(numbers) {
  let parts = [];
  for (let x of numbers) {
    const kept = [];
    for (let y of parts) {
      if (Math.abs(x) < Math.abs(y)) [x, y] = [y, x];
      const high = x + y,
        low = y - (high - x);
      if (low) kept.push(low);
      x = high;
    }
    parts = [...kept, x];
  }
  return parts.reduceRight((sum, part) => sum + part, 0);
}
