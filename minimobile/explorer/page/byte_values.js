// Single values of a network of bytes, written out: their terms, and each step from a sum to its byte. What the page
// does not compute is carried: the engine's own bytes.

import { listReads, range } from "./floats.js";
import { slide } from "./geometry.js";
import { emptyTerms, fill } from "./network.js";
import { requantize } from "./requantize.js";

const ADDED_BITS = 2 ** 20;

export function byteWindow(node, shape) {
  const [, height, width] = shape,
    { kernel_size: kernel = [1, 1], stride = 1, dilation = 1, padding = "VALID" } = node.attributes;
  return node.op === "mean"
    ? slide(height, width, [height, width], 1, 1, "VALID")
    : slide(height, width, kernel, stride, dilation, padding);
}

// The map as a product reads it: a linear layer takes all values as one pixel.
export function asRead(node, x) {
  return node.op === "fully_connected" ? { values: x.values, shape: [x.values.length, 1, 1] } : x;
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

export function writePool(network, node, [x], [row, column, channel]) {
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

export function addTwo(network, node, x, y) {
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

function writeCarried(network, node, inputs, position, value) {
  return { terms: emptyTerms(0), block: 1, stages: [{ name: "as the engine has it", operand: null, value }] };
}

// Writes the value of one position, by operation; of another operation the byte alone.
export function writeByte(network, node, inputs, position, computed) {
  return (BYTE_WRITERS[node.op] ?? writeCarried)(network, node, inputs, position, computed);
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
