// Whole maps of a network of bytes, by LiteRT's integer rules: products, sums, pools and means.

import { addTwo, asRead, byteWindow, writePool } from "./byte_values.js";
import { listReads, range } from "./floats.js";

// Fills `out` with what a layer computes of its inputs.
export function computeBytes(network, node, inputs, out, shape) {
  BYTE_MAKERS[node.op](network, node, inputs, out, shape);
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

const BYTE_MAKERS = {
  conv2d: multiply,
  fully_connected: multiply,
  depthwise_conv2d: filterBytes,
  add: addBytes,
  average_pool2d: poolBytes,
  mean: meanBytes,
};
