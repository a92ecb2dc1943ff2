// A network of bytes: its maps, weights and windows, and how sums become bytes. What the page does not compute is
// carried: the engine's own bytes. The interface is that of FloatNetwork.

import { computeBytes } from "./byte_maps.js";
import { byteWindow, writeByte } from "./byte_values.js";
import { fround } from "./fma.js";
import { PIXEL, joinFields, widenField } from "./geometry.js";
import { requantize, requantizeOnce } from "./requantize.js";

const PRODUCTS = ["conv2d", "depthwise_conv2d", "fully_connected"];

export class IntegerNetwork {
  constructor(layers, input, arrays) {
    this.layers = layers;
    this.input = input;
    this.arrays = arrays;
    this.type = input.values.constructor;
    this.maps = new Map([[input.name, { values: input.values, shape: input.shape }]]);
    this.byName = new Map(layers.map((layer) => [layer.name, layer]));
    this.lessZero = new Map();
  }

  // The weights of a product less their zero point, by output, ky, kx, input.
  weightsOf(node) {
    if (!this.lessZero.has(node.name)) {
      const { values } = this.arrays[node.attributes.weight];
      this.lessZero.set(
        node.name,
        Int16Array.from(values, (value) => value - node.attributes.weightZero),
      );
    }
    return this.lessZero.get(node.name);
  }

  run(layer) {
    const [node] = layer.nodes,
      inputs = layer.inputs.map((name) => this.maps.get(name));
    const values =
      node.op === "carried" ? this.arrays[node.attributes.values].values : this.compute(node, inputs, layer.shape);
    const map = { values, shape: layer.shape };
    this.maps.set(layer.name, map);
    return map;
  }

  compute(node, inputs, shape) {
    const [channels, height, width] = shape,
      out = new inputs[0].values.constructor(channels * height * width);
    computeBytes(this, node, inputs, out, shape);
    return out;
  }

  // How a sum becomes a byte: {multiplier, shift} of a channel, and the real factor they stand for.
  scaling(by, channel) {
    const of = (name) => this.arrays[by[name]].values;
    const at = of("multiplier").length > 1 ? channel : 0;
    return { multiplier: of("multiplier")[at], shift: of("shift")[at], factor: of("factor")[at] };
  }

  // Steps of the result's scale, by the rule of the operation.
  toSteps(total, by, channel) {
    const { multiplier, shift } = this.scaling(by, channel);
    return (by.roundsOnce ? requantizeOnce : requantize)(total, multiplier, shift);
  }

  toByte(total, by, channel, { zero, low, high }) {
    return Math.min(high, Math.max(low, this.toSteps(total, by, channel) + zero));
  }

  limit(layer) {
    const { stands, nodes } = layer,
      { high } = nodes[0].attributes;
    return stands && high !== undefined && high < (this.maps.get(layer.name).values instanceof Int8Array ? 127 : 255)
      ? high
      : null;
  }

  zero(layer) {
    return layer.stands ? layer.stands.zero : 0;
  }

  weights(layer) {
    const [node] = layer.nodes;
    if (!PRODUCTS.includes(node.op)) return null;
    const { values, shape } = this.arrays[node.attributes.weight];
    return {
      values,
      shape,
      kernelHeight: shape[1],
      folded: Float32Array.from(this.weightsOf(node)),
      bias: this.arrays[node.attributes.bias].values,
    };
  }

  window(layer) {
    return byteWindow(layer.nodes[0], this.shapes().get(layer.inputs[0]));
  }

  shapes() {
    return new Map([[this.input.name, this.input.shape], ...this.layers.map((layer) => [layer.name, layer.shape])]);
  }

  // Through what moves bytes about (reshaping, joining), no receptive field is told: it counts as the whole picture.
  fields() {
    const fields = new Map([[this.input.name, PIXEL]]),
      shapes = this.shapes();
    for (const layer of this.layers) {
      const [node] = layer.nodes,
        [, height, width] = layer.shape,
        [, above, beside] = shapes.get(layer.inputs[0]) ?? layer.shape;
      const isMoved = node.op === "carried" && (height !== above || width !== beside);
      const sees = node.op === "mean" || isMoved ? null : joinFields(layer.inputs.map((name) => fields.get(name)));
      fields.set(layer.name, sees && widenField(sees, byteWindow(node, shapes.get(layer.inputs[0]))));
    }
    return fields;
  }

  explain(name, position) {
    const layer = this.byName.get(name),
      [node] = layer.nodes,
      inputs = layer.inputs.map((input) => this.maps.get(input));
    const map = this.maps.get(name),
      [row, column, channel] = position;
    const computed = map.values[(row * map.shape[2] + column) * map.shape[0] + channel];
    const written = writeByte(this, node, inputs, position, Number(computed));
    const { stands } = layer,
      value = written.stages.at(-1).value;
    return {
      layer: name,
      position,
      sources: layer.inputs,
      ...written,
      value,
      computed: Number(computed),
      isInteger: true,
      unfolded: null,
      meaning: stands ? fround(fround(stands.scale) * fround(value - stands.zero)) : undefined,
    };
  }

  // From a sum to its byte, each step, and what rounding did.
  finish(total, by, channel, to) {
    const { multiplier, shift, factor } = this.scaling(by, channel),
      steps = this.toSteps(total, by, channel);
    return [
      { name: "the real factor of the scales", operand: factor, value: total * factor },
      { name: "times multiplier / 2³¹, times 2^shift, rounded", operand: multiplier, value: steps },
      { name: "what rounding added, in steps", operand: shift, value: steps - total * factor },
      { name: "plus the zero point", operand: to.zero, value: steps + to.zero },
      {
        name: `kept within ${to.low} and ${to.high}`,
        operand: null,
        value: Math.min(to.high, Math.max(to.low, steps + to.zero)),
      },
    ];
  }
}
