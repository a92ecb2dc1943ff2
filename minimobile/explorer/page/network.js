// A network of float32 with its weights: layers computed in order, changed, and single values written out.
// A layer is a list of nodes that follow one another; the map of its last one is kept under its name.

import { activate } from "./curves.js";
import { fma, fround } from "./fma.js";
import {
  compute,
  foldWeights,
  foldsNorm,
  interpolationPoint,
  isConvolution,
  listReads,
  normOf,
  range,
  roundToGrid,
  windowOf,
} from "./floats.js";
import { PIXEL, joinFields, widenField } from "./geometry.js";

export class FloatNetwork {
  // `arrays` are the weights by number, {values, shape}; they are changed by `setWeight` alone.
  constructor(layers, input, arrays) {
    this.layers = layers;
    this.input = input;
    this.arrays = arrays;
    this.maps = new Map([[input.name, { values: input.values, shape: input.shape }]]);
    this.byName = new Map(layers.map((layer) => [layer.name, layer]));
    this.folded = new Map();
    this.changes = []; // how to take back what was changed, the last change last
  }

  undo() {
    while (this.changes.length) this.changes.pop()();
  }

  // The value at which a layer's activation cuts off from above, or null; and what counts as zero.
  limit(layer) {
    const last = layer.nodes.at(-1);
    return last.op === "activation" && last.attributes.function === "relu6" ? 6 : null;
  }

  zero() {
    return 0;
  }

  // The weights of a layer as they are stored, and folded as they are computed with, or null.
  weights(layer) {
    const node = layer.nodes[0];
    if (!isConvolution(node)) return null;
    const { values, shape } = this.arrays[node.weights.weight];
    return { values, shape, kernelHeight: shape[2], folded: this.fold(node).weight, bias: this.fold(node).bias };
  }

  // Compute one layer from the maps before it.
  run(layer) {
    let inputs = layer.inputs.map((name) => this.maps.get(name));
    for (const node of layer.nodes) inputs = [compute(node, inputs, isConvolution(node) ? this.fold(node) : null)];
    this.maps.set(layer.name, inputs[0]);
    return inputs[0];
  }

  fold(node) {
    if (!this.folded.has(node.name)) this.folded.set(node.name, foldWeights(node, this.arrays));
    return this.folded.get(node.name);
  }

  // The layers that depend on a layer (or on the input), itself included, in order.
  after(name) {
    const touched = new Set([name]);
    return this.layers.filter((layer) => {
      const isTouched = touched.has(layer.name) || layer.inputs.some((input) => touched.has(input));
      if (isTouched) touched.add(layer.name);
      return isTouched;
    });
  }

  // The window of a layer's first node over what it reads, which may not be computed yet.
  window(layer) {
    return windowOf(layer.nodes[0], this.shapes().get(layer.inputs[0]));
  }

  // The shape of every layer's map, with the padding as it is now.
  shapes() {
    const shapes = new Map([[this.input.name, this.input.shape]]);
    for (const layer of this.layers) {
      const [first] = layer.nodes,
        read = layer.inputs.map((name) => shapes.get(name)),
        window = windowOf(first, read[0]);
      const sizes = first.op === "resize_bilinear" ? read[1].slice(1) : [window.outHeight, window.outWidth];
      shapes.set(layer.name, [layer.shape[0], ...sizes]);
    }
    return shapes;
  }

  fields() {
    const fields = new Map([[this.input.name, PIXEL]]),
      shapes = this.shapes();
    for (const layer of this.layers) {
      const joined = joinFields(layer.inputs.map((name) => fields.get(name)));
      const seesAll = layer.nodes[0].op === "global_average_pool2d";
      fields.set(
        layer.name,
        seesAll ? null : widenField(joined, windowOf(layer.nodes[0], shapes.get(layer.inputs[0]))),
      );
    }
    return fields;
  }

  setPixel(row, column, channel, value) {
    const [channels, , width] = this.input.shape,
      at = (row * width + column) * channels + channel;
    this.put(this.maps.get(this.input.name).values, at, value);
    return this.after(this.input.name);
  }

  put(values, at, value) {
    const before = values[at];
    this.changes.push(() => (values[at] = before));
    values[at] = value;
  }

  // Change one weight as it is stored: output, input, ky, kx.
  setWeight(layer, position, value) {
    const node = layer.nodes[0];
    const weight = this.arrays[node.weights.weight];
    this.put(
      weight.values,
      position.reduce((at, index, axis) => at * weight.shape[axis] + index, 0),
      value,
    );
    this.folded.delete(node.name);
    this.changes.push(() => this.folded.delete(node.name));
    return this.after(layer.name);
  }

  // Change the padding of every convolution with a window: "SAME", or as PyTorch pads, half of the kernel all around.
  // Throws one sentence, and changes nothing, where a map would have no pixel left.
  setPadding(rule) {
    const changed = [],
      already = this.changes.length;
    for (const layer of this.layers) {
      const node = layer.nodes[0];
      if (!("padding" in node.attributes)) continue;
      const before = node.attributes.padding;
      node.stored ??= before;
      this.changes.push(() => (node.attributes.padding = before));
      const half = Math.floor(((node.attributes.kernel_size - 1) * node.attributes.dilation) / 2);
      const even = [
        [half, half],
        [half, half],
      ];
      node.attributes.padding = rule === "file" ? node.stored : rule === "even" ? even : rule;
      changed.push(layer.name);
    }
    for (const [name, [, height, width]] of this.shapes()) {
      if (height > 0 && width > 0) continue;
      while (this.changes.length > already) this.changes.pop()();
      const needed = "a larger picture, or another padding, is needed";
      throw new Error(`With this padding no pixel is left of ${name}: ${needed}.`);
    }
    return changed.length ? this.after(changed[0]) : [];
  }

  // One value of a layer as the sum that made it.
  explain(name, position) {
    const layer = this.byName.get(name),
      [first, ...rest] = layer.nodes;
    const inputs = layer.inputs.map((input) => this.maps.get(input));
    const map = this.maps.get(name);
    const written = WRITERS[first.op](this, first, inputs, position);
    const stages = [...written.stages];
    for (const node of rest) {
      const value = stages.at(-1).value;
      if (node.op === "activation") {
        stages.push({
          name: node.attributes.function,
          operand: null,
          value: activate(value, node.attributes.function),
        });
      } else {
        const grid = node.attributes.grid;
        stages.push({ name: "rounded to steps of", operand: grid.step, value: roundToGrid(value, grid) });
      }
    }
    const [row, column, channel] = position;
    return {
      layer: name,
      position,
      ...written,
      stages,
      sources: layer.inputs,
      value: stages.at(-1).value,
      computed: map.values[(row * map.shape[2] + column) * map.shape[0] + channel],
      unfolded:
        isConvolution(first) && first.weights.scale !== undefined && foldsNorm(first)
          ? this.unfold(first, inputs, position, stages)
          : null,
    };
  }

  // The same value as it was trained: the weights of the file, then batch norm by itself, in float64, rounded once.
  unfold(node, inputs, position, folded) {
    const written = writeConvolution(this, node, inputs, position, foldWeights(node, this.arrays, false));
    const norm = normOf(node, this.arrays),
      c = position[2],
      convolved = written.stages.at(-1).value;
    const [mean, variance, scale, shift] = ["mean", "variance", "scale", "shift"].map((role) => norm[role][c]);
    const normalized = fround((convolved - mean) * (scale / Math.sqrt(variance + node.attributes.epsilon)) + shift);
    const before = folded[folded.findIndex((stage) => stage.name === "bias")].value;
    return {
      ...written,
      convolved,
      mean,
      variance,
      scale,
      shift,
      epsilon: node.attributes.epsilon,
      normalized,
      before,
    };
  }
}

// What each operation makes of one value: {terms, block, stages}. A term that is skipped has `read` -1.
const WRITERS = {
  conv2d: (network, node, inputs, position) => writeConvolution(network, node, inputs, position, network.fold(node)),
  depthwise_conv2d: (...all) => WRITERS.conv2d(...all),
  pointwise_conv2d: (...all) => WRITERS.conv2d(...all),
  average_pool2d: writeAverage,
  global_average_pool2d: writeAverage,
  add: (network, node, [x, y], [row, column, channel]) => {
    const at = (row * x.shape[2] + column) * x.shape[0] + channel;
    const terms = emptyTerms(1);
    fill(terms, 0, [0, 0, row, column, channel], at, x.values[at], 1, x.values[at], x.values[at]);
    const value = fround(x.values[at] + y.values[at]);
    return { terms, block: 1, stages: [{ name: "the second map's value", operand: y.values[at], value }] };
  },
  concatenate: (network, node, [x, y], [row, column, channel]) => {
    const own = x.shape[0],
      [map, c, from] = channel < own ? [x, channel, 0] : [y, channel - own, 1];
    return { ...writeCopy(map, row, column, c), from };
  },
  resize_bilinear: (network, node, inputs, [row, column, channel]) => {
    const [x, like] = inputs,
      [channels, oldHeight, oldWidth] = x.shape,
      [, height, width] = like.shape;
    if (oldHeight === 1 && oldWidth === 1) return writeCopy(x, 0, 0, channel);
    const align = node.attributes.align_corners;
    const [upper, lower, down] = interpolationPoint(oldHeight, height, align, row);
    const [left, right, across] = interpolationPoint(oldWidth, width, align, column);
    const terms = emptyTerms(4),
      sums = [];
    [upper, lower].forEach((y, ky) => {
      let running = 0;
      [left, right].forEach((z, kx) => {
        const at = (y * oldWidth + z) * channels + channel,
          weight = kx ? across : 1 - across;
        const product = x.values[at] * weight;
        running = kx ? running + product : product;
        fill(terms, 2 * ky + kx, [ky, kx, y, z, channel], at, x.values[at], weight, product, running);
      });
      sums.push(running);
    });
    const above = sums[0] * (1 - down),
      below = sums[1] * down;
    return {
      terms,
      block: 2,
      precision: "float64",
      stages: [
        { name: "upper row, times", operand: 1 - down, value: above },
        { name: "and lower row, times", operand: down, value: above + below },
        { name: "as float32", operand: null, value: fround(above + below) },
      ],
    };
  },
};

function writeConvolution(network, node, [x], position, folded) {
  const [row, column, channel] = position,
    channels = x.shape[0],
    count = folded.count;
  const isByChannel = node.op === "depthwise_conv2d";
  const window = windowOf(node, x.shape);
  const reads = listReads(window, row, column, isByChannel ? range(1, channels, channel) : range(channels));
  const block = node.attributes.block,
    terms = emptyTerms(count),
    stages = [];
  const inner = isByChannel ? 1 : channels;
  for (let low = 0; low < count; low += block) {
    let sum = 0;
    for (let k = low; k < Math.min(low + block, count); k++) {
      const weight = folded.weight[channel * count + k],
        tap = Math.floor(k / inner);
      const ky = Math.floor(tap / window.kernel[1]),
        kx = tap % window.kernel[1];
      const y = row * window.stride - window.top + ky * window.dilation;
      const z = column * window.stride - window.left + kx * window.dilation;
      const pixel = reads[k] < 0 ? NaN : x.values[reads[k]];
      if (reads[k] >= 0) sum = fma(pixel, weight, sum);
      fill(terms, k, [ky, kx, y, z, isByChannel ? channel : k % inner], reads[k], pixel, weight, pixel * weight, sum);
    }
    const value = stages.length ? fround(stages.at(-1).value + sum) : sum;
    stages.push({ name: `block ${stages.length}`, operand: sum, value });
  }
  const bias = folded.bias[channel],
    total = stages.at(-1).value;
  if (folded.factor) {
    const factor = folded.factor[channel];
    stages.push({ name: "times batch norm's factor", operand: factor, value: total * factor });
    stages.push({ name: "bias", operand: bias, value: fma(total, factor, bias) });
  } else {
    stages.push({ name: "bias", operand: bias, value: fround(total + bias) });
  }
  return { terms, block, stages };
}

function writeAverage(network, node, [x], [row, column, channel]) {
  const window = windowOf(node, x.shape),
    precision = node.attributes.precision ?? "float64";
  const round = precision === "float32" ? fround : (value) => value;
  const reads = listReads(window, row, column, range(1, x.shape[0], channel)),
    terms = emptyTerms(reads.length);
  let sum = 0;
  reads.forEach((read, k) => {
    const ky = Math.floor(k / window.kernel[1]),
      kx = k % window.kernel[1];
    sum = round(sum + x.values[read]);
    const place = [ky, kx, row * window.stride + ky, column * window.stride + kx, channel];
    fill(terms, k, place, read, x.values[read], 1, x.values[read], sum);
  });
  return {
    terms,
    block: reads.length,
    precision,
    stages: [
      { name: `sum in ${precision}`, operand: null, value: sum },
      { name: "divided, as float32", operand: reads.length, value: fround(sum / reads.length) },
    ],
  };
}

function writeCopy(map, row, column, channel) {
  const at = (row * map.shape[2] + column) * map.shape[0] + channel,
    terms = emptyTerms(1);
  fill(terms, 0, [0, 0, row, column, channel], at, map.values[at], 1, map.values[at], map.values[at]);
  return { terms, block: 1, stages: [{ name: "copied", operand: null, value: map.values[at] }] };
}

// Terms as columns: where each reads (`place`: ky, kx, row, column, channel), the numbers, and the block's sum so far.
export function emptyTerms(count) {
  return {
    count,
    place: new Int32Array(5 * count),
    read: new Int32Array(count),
    pixel: new Float64Array(count),
    weight: new Float64Array(count),
    product: new Float64Array(count),
    running: new Float64Array(count),
  };
}

export function fill(terms, k, place, read, pixel, weight, product, running) {
  terms.place.set(place, 5 * k);
  terms.read[k] = read;
  terms.pixel[k] = pixel;
  terms.weight[k] = weight;
  terms.product[k] = product;
  terms.running[k] = running;
}
