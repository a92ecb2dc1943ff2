// The page: its parts, what they ask of the worker, and what follows from a change.

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
    const padding = make(
      "select",
      { name: "padding", onchange: () => this.change("setPadding", { rule: padding.value }) },
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
          padding.value = "file";
          await this.change("undo", {});
          this.photograph.showInput(await this.ask("map", { name: this.document.input.name }));
        },
      },
      "Undo all changes",
    );
    return [make("div", { class: "row" }, field("padding of all windows", padding), this.undo)];
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
    this.layerView.refresh();
    if (this.opened) this.valueView.open(...this.opened);
  }

  async change(call, given) {
    this.failed = 0;
    find("status").dataset.busy = "yes";
    if (this.undo) this.undo.disabled = call === "undo";
    const { fields } = await this.ask(call, given);
    this.fields = new Map(fields);
  }

  async openLayer(name) {
    this.opened = null;
    this.diagram.open(name);
    await this.layerView.open(this.layer(name));
    find("layer").scrollIntoView({ block: "start" });
    find("layer").focus({ preventScroll: true });
    announce(`Layer ${name} is open.`);
  }

  async openValue(name, position) {
    this.opened = [name, position];
    this.layerView.show(position);
    await this.valueView.open(name, position);
    find("value").scrollIntoView({ block: "nearest" });
    announce(`Value at row ${position[0]}, column ${position[1]}, channel ${position[2]} of ${name} written out.`);
  }

  async openLayerAndValue(name, position) {
    this.diagram.open(name);
    await this.layerView.open(this.layer(name));
    if (this.layerView.map) await this.openValue(name, position);
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

// In a notebook's frame a link to a part of this page would lead to the notebook: there it is followed by hand.
function followLinks() {
  if (location.protocol !== "about:") return;
  for (const link of document.querySelectorAll("a[href^='#']")) {
    link.onclick = (event) => {
      event.preventDefault();
      find(link.hash.slice(1)).scrollIntoView();
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
}

main().catch((error) => {
  find("status").textContent = `This page cannot be shown here: ${error.message}`;
  throw error;
});
