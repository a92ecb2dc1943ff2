// The network as its paper draws it: blocks in order, a layer a button, the residual connection an arc over its block.

import { find, grouped, make, sizes } from "./dom.js";

export const KINDS = {
  dense: "convolution over all channels",
  depthwise: "depthwise: each channel by itself",
  pointwise: "pointwise: channels mixed",
  other: "pooling, sums, joins",
};

export function kindOf(layer) {
  const { op, attributes } = layer.nodes[0];
  if (op === "conv2d" && attributes.kernel_size?.toString() === "1,1") return "pointwise"; // as quantised files have it
  return (
    { conv2d: "dense", depthwise_conv2d: "depthwise", pointwise_conv2d: "pointwise", fully_connected: "pointwise" }[
      op
    ] ?? "other"
  );
}

export class Diagram {
  constructor(state) {
    this.state = state;
    this.buttons = new Map();
    for (const [kind, text] of Object.entries(KINDS)) find("kinds").append(make("li", { class: `kind-${kind}` }, text));
    const blocks = [];
    for (const layer of state.document.layers) {
      if (blocks.at(-1)?.name !== layer.block) blocks.push({ name: layer.block, layers: [] });
      blocks.at(-1).layers.push(layer);
    }
    for (const { name, layers } of blocks) find("diagram").append(this.addBlock(name, layers));
  }

  addBlock(name, layers) {
    const hasResidual = layers.length > 1 && layers.some((layer) => layer.nodes[0].op === "add");
    const heading = make(
      "h3",
      {},
      name,
      hasResidual ? make("span", { class: "note" }, " with a residual connection") : null,
    );
    const body = make(
      "div",
      { class: "layers" },
      layers.map((layer) => this.addLayer(layer, name)),
    );
    return make("div", { class: hasResidual ? "block residual" : "block" }, heading, body);
  }

  addLayer(layer, block) {
    const own = layer.name.startsWith(`${block}.`) ? layer.name.slice(block.length + 1) : layer.name;
    const time = this.writeTime(layer);
    const button = make(
      "button",
      {
        type: "button",
        class: `layer kind-${kindOf(layer)}`,
        title: layer.name,
        onclick: () => this.state.go(layer.name),
      },
      make("strong", {}, own),
      make("span", {}, layer.kind),
      make("span", {}, sizes(layer.shape)),
      make("span", { class: "fine" }, layer.multiplyAdds ? `${grouped(layer.multiplyAdds)} mult-adds` : " "),
      make(
        "span",
        { class: "fine" },
        layer.parameters ? `${grouped(layer.parameters)} param.` : " ",
        time ? ` ${time}` : "",
      ),
    );
    this.buttons.set(layer.name, button);
    return button;
  }

  // What is done in one step is timed together: the time stands with the last of it.
  writeTime({ name, step, microseconds }) {
    if (microseconds === null) return "";
    return step.at(-1) === name ? `${microseconds.toFixed(microseconds < 100 ? 1 : 0)} µs` : "time: with the next";
  }

  // A layer is computed: `isSame` tells whether it has the engine's bits, null after a change.
  settle(name, isSame) {
    const button = this.buttons.get(name);
    const isCarried = this.state.layer(name).nodes[0].op === "carried"; // not computed here: nothing to compare
    button.dataset.state = isCarried ? "carried" : isSame === null ? "changed" : isSame ? "same" : "other";
  }

  open(name) {
    for (const [other, button] of this.buttons) button.setAttribute("aria-pressed", other === name ? "true" : "false");
  }
}
