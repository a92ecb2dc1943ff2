// The page: its parts, what they ask of the worker, and what follows from a change.

import { hasAddress, readAddress, writeAddress } from "./address.js";
import { Answer } from "./answer.js";
import { Diagram } from "./diagram.js";
import { announce, field, find, grouped, make } from "./dom.js";
import { LayerView } from "./layer.js";
import { unpack } from "./payload.js";
import { Photograph } from "./photo.js";
import { ValueView } from "./value.js";

class State {
  constructor(description, pictures) {
    this.document = description;
    this.pictures = pictures;
    this.canEdit = description.arithmetic === "float32";
    this.measured = new Map();
    this.fields = new Map();
    this.waiting = new Map();
    this.asked = 0;
    this.failed = 0;
    this.opened = null; // what tells an opening that another has followed it
    this.position = null; // of the value that is written out: [row, column, channel]
    this.byName = new Map(description.layers.map((layer) => [layer.name, layer]));
  }

  layer(name) {
    return this.byName.get(name);
  }

  begin() {
    this.photograph = new Photograph(this);
    this.answer = new Answer(this);
    this.diagram = new Diagram(this);
    this.layerView = new LayerView(this);
    this.valueView = new ValueView(this);
    find("subtitle").textContent =
      `${grouped(this.document.model.parameters)} parameters, ${this.document.layers.length} layers, ` +
      `in ${this.document.arithmetic}; all of it is in this file.`;
    find("network-tools").append(...(this.canEdit ? this.makeTools() : []));
    if (!this.canEdit) find("pixel-edit").hidden = true;
  }

  makeTools() {
    const complaint = make("p", { class: "complaint", role: "alert" });
    let rule = "file";
    const setPadding = async () => {
      complaint.textContent = "";
      try {
        await this.change("setPadding", { rule: padding.value });
        rule = padding.value;
      } catch (error) {
        complaint.textContent = error.message;
        padding.value = rule;
      }
    };
    const padding = make(
      "select",
      { name: "padding", onchange: setPadding },
      ...[
        ["file", "as the network has it"],
        ["SAME", "SAME: TensorFlow's"],
        ["even", "even on all sides: PyTorch's"],
        ["VALID", "VALID: none"],
      ].map(([value, text]) => make("option", { value }, text)),
    );
    this.undo = make(
      "button",
      {
        type: "button",
        disabled: true,
        onclick: async () => {
          padding.value = rule = "file";
          complaint.textContent = "";
          await this.change("undo", {});
          this.photograph.showInput(await this.ask("map", { name: this.document.input.name }));
        },
      },
      "Undo all changes",
    );
    return [make("div", { class: "row" }, field("padding of all windows", padding), this.undo), complaint];
  }

  // Start the worker. The weights come last in the file: what is above them can be seen and used meanwhile.
  async start() {
    const url = URL.createObjectURL(new Blob([find("worker").textContent], { type: "text/javascript" }));
    this.worker = new Worker(url);
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = (event) => this.fail(event.message);
    const { input, layers, outputs, weights, arithmetic, tensors } = this.document;
    const { fields } = await this.ask("start", {
      description: { input, layers, outputs, weights, arithmetic, tensors },
      weights: find("weights").textContent,
    });
    this.fields = new Map(fields);
    this.photograph.showInput(await this.ask("map", { name: input.name }));
  }

  ask(call, given) {
    const id = ++this.asked;
    this.worker.postMessage({ id, call, given });
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }

  hear(message) {
    if (message.event === "layer") this.settleLayer(message);
    else if (message.event === "done") this.finish(message);
    else if (message.event === "failed") this.fail(message.error);
    else {
      const { resolve, reject } = this.waiting.get(message.id);
      this.waiting.delete(message.id);
      if (message.error) reject(new Error(message.error));
      else resolve(message.result);
    }
  }

  fail(reason) {
    find("status").textContent = `The network cannot be computed here, please report this: ${reason}`;
    find("status").dataset.state = "other";
  }

  settleLayer(message) {
    this.measured.set(message.name, message);
    this.diagram.settle(message.name, message.isSame);
    this.failed += message.isSame === false ? 1 : 0;
    find("progress").value = message.done / message.count;
    find("status").textContent = `Computed ${message.done} of ${message.count} layers…`;
    if (message.name === this.layerView.layer?.name) this.showOpened();
  }

  finish({ outputs, isEdited, seconds }) {
    const carried = this.document.layers.filter((layer) => layer.nodes[0].op === "carried").length;
    const all = this.document.layers.length,
      taken = `${seconds.toFixed(1)} s`;
    const checked = this.failed
      ? `${this.failed} of ${all} layers differ from the engine: please report this.`
      : `${carried ? `${all - carried} of ${all}` : `All ${all}`} layers computed in ${taken}: the engine's bits, every one.`;
    find("status").textContent = isEdited ? `Computed with your changes in ${taken}.` : checked;
    delete find("status").dataset.busy;
    find("status").dataset.state = isEdited ? "changed" : this.failed ? "other" : "same";
    this.answer.settle(outputs, isEdited);
    find("status").setAttribute("aria-busy", "false"); // not every layer is worth a word of a screen reader
    this.showOpened();
  }

  // Throws what the worker says against the change; then everything stays as it was.
  async change(call, given) {
    const status = find("status"),
      { failed } = this,
      { busy } = status.dataset;
    this.failed = 0;
    status.dataset.busy = "yes";
    try {
      const { fields } = await this.ask(call, given);
      this.fields = new Map(fields);
    } catch (error) {
      this.failed = failed;
      if (!busy) delete status.dataset.busy;
      throw error;
    }
    this.undo.disabled = call === "undo";
  }

  // Open a layer, or a value of it, and have the address say so: Back leads to what was open before.
  go(name, position = null) {
    const hash = writeAddress(name, position);
    if (hasAddress() && hash !== location.hash) history.pushState(null, "", hash);
    return this.open({ name, position, channel: null });
  }

  // Open what the address says.
  async follow() {
    find("address").textContent = "";
    let place;
    try {
      place = readAddress(location.hash, this.byName);
    } catch (error) {
      find("address").textContent = error.message;
      return;
    }
    if (place) await this.open(place);
    else if (location.hash.length < 2) this.close();
  }

  async open({ name, position, channel }) {
    const asked = (this.opened = {}),
      focused = document.activeElement;
    find("address").textContent = "";
    this.position = position;
    this.diagram.open(name);
    if (name !== this.layerView.layer?.name) this.layerView.open(this.layer(name));
    if (!position) this.valueView.close();
    const place = position ?? (channel === null ? null : [0, 0, channel]);
    if (place) this.layerView.show(place);
    if (this.layerView.map) await this.showValue();
    else await this.showOpened();
    if (asked !== this.opened) return; // something else was opened meanwhile: the page is not moved under the pointer
    if (position) {
      find("value").scrollIntoView({ block: "nearest" });
      const [row, column, own] = position;
      announce(`Value at row ${row}, column ${column}, channel ${own} of ${name} written out.`);
    } else {
      if ([focused, document.body].includes(document.activeElement)) { // not already somewhere else
        find("layer").scrollIntoView({ block: "start" });
        find("layer").focus({ preventScroll: true });
      }
      announce(`Layer ${name} is open.`);
    }
  }

  close() {
    this.opened = null;
    this.position = null;
    this.diagram.open(null);
    this.layerView.close();
    this.valueView.close();
  }

  // What is open, as far as it is computed. A change of the padding may have left fewer rows and columns.
  async showOpened() {
    if (!this.layerView.layer) return;
    await this.layerView.refresh();
    await this.showValue();
  }

  async showValue() {
    const { layer, map } = this.layerView;
    if (!map || !this.position) return;
    this.position = this.layerView.clamp(this.position);
    await this.valueView.open(layer.name, this.position);
  }

  // Draw the receptive field of a value on the photograph.
  mark(name, [row, column]) {
    const field = this.fields.get(name),
      [, height, width] = this.document.input.shape;
    if (field === undefined) return;
    if (field === null) {
      this.photograph.mark({ left: 0, top: 0, width, height });
      return;
    }
    const span = (reach, index, size) => {
      const start = reach.start + index * reach.step;
      return [Math.max(0, start), Math.min(size, start + reach.size)];
    };
    const [top, bottom] = span(field.height, row, height),
      [left, right] = span(field.width, column, width);
    this.photograph.mark({ left, top, width: right - left, height: bottom - top });
  }
}

function chooseTheme() {
  const button = find("theme"),
    query = matchMedia("(prefers-color-scheme: dark)");
  const show = (isDark) => {
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    button.textContent = isDark ? "Light" : "Dark";
    button.setAttribute("aria-label", isDark ? "Switch to light colours" : "Switch to dark colours");
  };
  button.onclick = () => show(document.documentElement.dataset.theme !== "dark");
  query.onchange = () => show(query.matches);
  show(query.matches);
}

// A link to a part of this page is followed by hand: the address stays that of what is open, which may be sent to
// others or loaded again. (In a notebook's frame it would lead to the notebook.)
function followLinks() {
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.onclick = (event) => {
      event.preventDefault();
      const part = find(link.hash.slice(1));
      part.scrollIntoView();
      part.focus({ preventScroll: true });
    };
  }
}

async function main() {
  chooseTheme();
  followLinks();
  const state = new State(JSON.parse(find("document").textContent), await unpack(find("pictures").textContent));
  state.begin();
  if (document.readyState === "loading")
    await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));
  await state.start();
  if (!hasAddress()) return;
  addEventListener("hashchange", () => state.follow());
  await state.follow();
}

main().catch((error) => {
  find("status").textContent = `This page cannot be shown here: ${error.message}`;
  throw error;
});
