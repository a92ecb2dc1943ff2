// A network of bytes: products, sums, pools and means by LiteRT's integer rules, and single values written out. What
// the page does not compute is carried: the engine's own bytes. The interface is that of FloatNetwork.

import { fround } from "./fma.js";
import { listReads, range } from "./floats.js";
import { PIXEL, joinFields, slide, widenField } from "./geometry.js";
import { emptyTerms, fill } from "./network.js";
import { requantize, requantizeOnce } from "./requantize.js";

const ADDED_BITS = 2 ** 20;
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
    const give = {
      conv2d: multiply,
      fully_connected: multiply,
      depthwise_conv2d: filterBytes,
      add: addBytes,
      average_pool2d: poolBytes,
      mean: meanBytes,
    }[node.op];
    give(this, node, inputs, out, shape);
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
    const written = (BYTE_WRITERS[node.op] ?? writeCarried)(this, node, inputs, position, Number(computed));
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

function byteWindow(node, shape) {
  const [, height, width] = shape,
    { kernel_size: kernel = [1, 1], stride = 1, dilation = 1, padding = "VALID" } = node.attributes;
  return node.op === "mean"
    ? slide(height, width, [height, width], 1, 1, "VALID")
    : slide(height, width, kernel, stride, dilation, padding);
}

// The map as a product reads it: a linear layer takes all values as one pixel.
function asRead(node, x) {
  return node.op === "fully_connected" ? { values: x.values, shape: [x.values.length, 1, 1] } : x;
}

function multiply(network, node, inputs, out, shape) {
  const x = asRead(node, inputs[0]),
    channels = x.shape[0],
    [outputs, height, width] = shape,
    to = node.attributes;
  const window = byteWindow(node, x.shape),
    weight = network.weightsOf(node),
    bias = network.arrays[to.bias].values;
  const count = weight.length / outputs,
    patch = new Int16Array(count),
    every = range(channels);
  const totals = new Int32Array(outputs);
  for (let row = 0, start = 0; row < height; row++) {
    for (let column = 0; column < width; column++, start += outputs) {
      const reads = listReads(window, row, column, every);
      for (let k = 0; k < count; k++) patch[k] = reads[k] < 0 ? 0 : x.values[reads[k]] - to.xZero;
      sumBytes(patch, weight, bias, totals);
      for (let o = 0; o < outputs; o++) out[start + o] = network.toByte(totals[o], to, o, to);
    }
  }
}

// totals[o] = bias[o] + the sum over k of patch[k] * weight[o * count + k]; four outputs share the reads of the patch.
function sumBytes(patch, weight, bias, totals) {
  const count = patch.length,
    outputs = totals.length;
  let o = 0;
  for (; o + 4 <= outputs; o += 4) {
    const at0 = o * count,
      at1 = at0 + count,
      at2 = at1 + count,
      at3 = at2 + count;
    let a = bias[o],
      b = bias[o + 1],
      c = bias[o + 2],
      d = bias[o + 3];
    for (let k = 0; k < count; k++) {
      const v = patch[k];
      a = (a + Math.imul(v, weight[at0 + k])) | 0;
      b = (b + Math.imul(v, weight[at1 + k])) | 0;
      c = (c + Math.imul(v, weight[at2 + k])) | 0;
      d = (d + Math.imul(v, weight[at3 + k])) | 0;
    }
    totals[o] = a;
    totals[o + 1] = b;
    totals[o + 2] = c;
    totals[o + 3] = d;
  }
  for (; o < outputs; o++) {
    let total = bias[o];
    for (let k = 0; k < count; k++) total = (total + Math.imul(patch[k], weight[o * count + k])) | 0;
    totals[o] = total;
  }
}

function filterBytes(network, node, [x], out, shape) {
  const [channels, height, width] = shape,
    to = node.attributes,
    window = byteWindow(node, x.shape);
  const weight = network.weightsOf(node),
    bias = network.arrays[to.bias].values,
    count = weight.length / channels;
  const first = range(1, channels);
  for (let row = 0, start = 0; row < height; row++) {
    for (let column = 0; column < width; column++, start += channels) {
      const reads = listReads(window, row, column, first);
      for (let c = 0; c < channels; c++) {
        let total = bias[c];
        for (let k = 0; k < count; k++)
          if (reads[k] >= 0) total += (x.values[reads[k] + c] - to.xZero) * weight[c * count + k];
        out[start + c] = network.toByte(total, to, c, to);
      }
    }
  }
}

function addBytes(network, node, [x, y], out) {
  for (let k = 0; k < out.length; k++) out[k] = addTwo(network, node, x.values[k], y.values[k]).at(-1).value;
}

function addTwo(network, node, x, y) {
  const { by, zeros } = node.attributes,
    stages = [];
  let total = 0;
  [x, y].forEach((value, side) => {
    const { multiplier, shift } = network.scaling(by[side], 0);
    const steps = requantize((value - zeros[side]) * ADDED_BITS, multiplier, shift);
    total += steps;
    stages.push({
      name: `${side ? "second" : "first"}, less its zero, in common steps`,
      operand: value - zeros[side],
      value: total,
    });
  });
  const { multiplier, shift } = network.scaling(by[2], 0),
    to = node.attributes,
    steps = requantize(total, multiplier, shift);
  const exactSum =
    (x - zeros[0]) * network.scaling(by[0], 0).factor + (y - zeros[1]) * network.scaling(by[1], 0).factor;
  stages.push({ name: "in steps of the result, rounded", operand: null, value: steps });
  stages.push({ name: "what rounding added, in steps", operand: exactSum, value: steps - exactSum });
  stages.push({ name: "plus the zero point", operand: to.zero, value: steps + to.zero });
  stages.push({
    name: `kept within ${to.low} and ${to.high}`,
    operand: null,
    value: Math.min(to.high, Math.max(to.low, steps + to.zero)),
  });
  return stages;
}

function poolBytes(network, node, [x], out, shape) {
  const [channels, height, width] = shape;
  for (let row = 0, k = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      for (let c = 0; c < channels; c++, k++)
        out[k] = writePool(network, node, [x], [row, column, c]).stages.at(-1).value;
    }
  }
}

function meanBytes(network, node, [x], out) {
  const channels = x.shape[0],
    to = node.attributes;
  for (let c = 0; c < channels; c++) {
    let total = 0;
    for (let k = c; k < x.values.length; k += channels) total += x.values[k] - to.xZero;
    out[c] = network.toByte(total, to, c, to);
  }
}

function writeProduct(network, node, inputs, [row, column, channel]) {
  const x = asRead(node, inputs[0]),
    to = node.attributes,
    window = byteWindow(node, x.shape),
    weight = network.weightsOf(node);
  const isByChannel = node.op === "depthwise_conv2d",
    channels = x.shape[0],
    count = weight.length / network.arrays[to.bias].values.length;
  const reads = listReads(window, row, column, isByChannel ? range(1, channels, channel) : range(channels));
  const { terms, total } = writeTerms(
    x,
    window,
    reads,
    [row, column, channel],
    isByChannel ? 1 : channels,
    to.xZero,
    (k) => weight[channel * count + k],
  );
  const bias = network.arrays[to.bias].values[channel],
    stages = [
      { name: "sum", operand: null, value: total },
      { name: "bias", operand: bias, value: total + bias },
    ];
  return { terms, block: count, stages: [...stages, ...network.finish(total + bias, to, channel, to)] };
}

function writeTerms(x, window, reads, [row, column, channel], inner, zero, weightAt) {
  const terms = emptyTerms(reads.length);
  let total = 0;
  for (let k = 0; k < reads.length; k++) {
    const tap = Math.floor(k / inner),
      ky = Math.floor(tap / window.kernel[1]),
      kx = tap % window.kernel[1],
      weight = weightAt(k);
    const place = [
      ky,
      kx,
      row * window.stride - window.top + ky * window.dilation,
      column * window.stride - window.left + kx * window.dilation,
      inner > 1 ? k % inner : channel,
    ];
    const pixel = reads[k] < 0 ? NaN : x.values[reads[k]] - zero;
    if (reads[k] >= 0) total += pixel * weight;
    fill(terms, k, place, reads[k], pixel, weight, pixel * weight, total);
  }
  return { terms, total };
}

function writePool(network, node, [x], [row, column, channel]) {
  const window = byteWindow(node, x.shape),
    reads = listReads(window, row, column, range(1, x.shape[0], channel));
  const { terms, total } = writeTerms(x, window, reads, [row, column, channel], 1, 0, () => 1),
    { low, high } = node.attributes;
  const area = reads.reduce((count, read) => count + (read >= 0 ? 1 : 0), 0),
    half = Math.floor(area / 2);
  const mean = total >= 0 ? Math.floor((total + half) / area) : -Math.floor((half - total) / area);
  return {
    terms,
    block: reads.length,
    stages: [
      { name: "sum", operand: null, value: total },
      { name: "divided, to the nearest", operand: area, value: mean },
      { name: `kept within ${low} and ${high}`, operand: null, value: Math.min(high, Math.max(low, mean)) },
    ],
  };
}

function writeMean(network, node, [x], [row, column, channel]) {
  const window = byteWindow(node, x.shape),
    reads = listReads(window, 0, 0, range(1, x.shape[0], channel)),
    to = node.attributes;
  const { terms, total } = writeTerms(x, window, reads, [0, 0, channel], 1, to.xZero, () => 1);
  return {
    terms,
    block: reads.length,
    stages: [{ name: "sum", operand: null, value: total }, ...network.finish(total, to, channel, to)],
  };
}

function writeCarried(network, node, inputs, position, value) {
  return { terms: emptyTerms(0), block: 1, stages: [{ name: "as the engine has it", operand: null, value }] };
}

const BYTE_WRITERS = {
  conv2d: writeProduct,
  depthwise_conv2d: writeProduct,
  fully_connected: writeProduct,
  average_pool2d: writePool,
  mean: writeMean,
  add: (network, node, [x, y], [row, column, channel]) => {
    const at = (row * x.shape[2] + column) * x.shape[0] + channel,
      stages = addTwo(network, node, x.values[at], y.values[at]);
    return { terms: emptyTerms(0), block: 1, stages };
  },
};
