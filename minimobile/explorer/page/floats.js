// What the nodes of a network of float32 compute, and one value of theirs written out. A map is {values, shape}, its
// values in the order row, column, channel, its shape [channels, height, width].

import { activate } from "./curves.js";
import { fma, fround, sumProducts, sumTerms } from "./fma.js";
import { slide } from "./geometry.js";

const ONE_PIXEL = [1, 1];

// The window with which a node slides over its input.
export function windowOf(node, shape) {
  const [, height, width] = shape;
  const { kernel_size: size = 1, stride = 1, dilation = 1, padding = "VALID" } = node.attributes;
  if (node.op === "global_average_pool2d") return slide(height, width, [height, width], 1, 1, "VALID");
  if (node.op === "average_pool2d") {
    return slide(height, width, [Math.min(size, height), Math.min(size, width)], stride, 1, "VALID");
  }
  if (node.op === "conv2d" || node.op === "depthwise_conv2d") {
    return slide(height, width, [size, size], stride, dilation, padding);
  }
  return slide(height, width, ONE_PIXEL, 1, 1, "VALID");
}

export const isConvolution = (node) => node.op.endsWith("conv2d");

// Weight and bias of a convolution as they are computed with. Batch norm is folded in float64 and rounded once; where a
// node does not fold it, its weights stay, and `factor` is what the sums are multiplied with.
// A stored weight has the order output, input, ky, kx; the result has the order output, ky, kx, input.
export function foldWeights(node, arrays, isFolded = true) {
  const weight = arrays[node.weights.weight];
  const bias = node.weights.bias === undefined ? null : arrays[node.weights.bias];
  const [outputs, inputs, height, width] = weight.shape;
  const count = inputs * height * width;
  const folded = { weight: new Float32Array(outputs * count), bias: new Float32Array(outputs), count };
  const hasNorm = isFolded && node.weights.scale !== undefined;
  const scalesSums = hasNorm && !foldsNorm(node);
  folded.factor = scalesSums ? new Float32Array(outputs) : null;
  const norm = hasNorm ? normOf(node, arrays) : null;
  for (let o = 0; o < outputs; o++) {
    const exact = hasNorm ? norm.scale[o] / Math.sqrt(norm.variance[o] + node.attributes.epsilon) : 1;
    const factor = scalesSums ? fround(exact) : exact;
    if (scalesSums) folded.factor[o] = factor;
    for (let i = 0; i < inputs; i++) {
      for (let tap = 0; tap < height * width; tap++) {
        const own = weight.values[o * count + i * height * width + tap];
        folded.weight[o * count + tap * inputs + i] = scalesSums ? own : own * factor;
      }
    }
    const own = bias === null ? 0 : bias.values[o];
    folded.bias[o] = (hasNorm ? (own - norm.mean[o]) * factor + norm.shift[o] : own) + 0;
  }
  folded.isFinite = folded.weight.every(Number.isFinite);
  return folded;
}

export const foldsNorm = (node) => node.attributes.folds_batch_norm !== false;

export function normOf(node, arrays) {
  return Object.fromEntries(
    ["scale", "shift", "mean", "variance"].map((role) => [role, arrays[node.weights[role]].values]),
  );
}

// Compute a node. `folded` are the weights of a convolution.
export function compute(node, inputs, folded) {
  const [x] = inputs;
  const [channels, height, width] = x.shape;
  if (folded?.factor) return scaleSums(node, inputs, folded);
  switch (node.op) {
    case "pointwise_conv2d": {
      const out = empty(folded.bias.length, height, width);
      const sum = folded.isFinite ? sumProducts : sumSlowly;
      for (let pixel = 0; pixel < height * width; pixel++) {
        sum(
          x.values,
          pixel * channels,
          folded.weight,
          folded.bias,
          channels,
          node.attributes.block,
          out.values,
          pixel * folded.bias.length,
        );
      }
      return out;
    }
    case "conv2d":
      return convolve(x, windowOf(node, x.shape), folded, node.attributes.block);
    case "depthwise_conv2d":
      return filter(x, windowOf(node, x.shape), folded, node.attributes.block);
    case "activation": {
      const out = empty(channels, height, width),
        name = node.attributes.function;
      for (let k = 0; k < out.values.length; k++) out.values[k] = activate(x.values[k], name);
      return out;
    }
    case "fake_quantize": {
      const out = empty(channels, height, width),
        grid = node.attributes.grid;
      for (let k = 0; k < out.values.length; k++) out.values[k] = roundToGrid(x.values[k], grid);
      return out;
    }
    case "add": {
      const out = empty(channels, height, width),
        y = inputs[1].values;
      for (let k = 0; k < out.values.length; k++) out.values[k] = x.values[k] + y[k];
      return out;
    }
    case "average_pool2d":
    case "global_average_pool2d":
      return average(x, windowOf(node, x.shape), node.attributes.precision);
    case "resize_bilinear":
      return resize(x, inputs[1].shape[1], inputs[1].shape[2], node.attributes.align_corners);
    case "concatenate": {
      const y = inputs[1],
        others = y.shape[0],
        out = empty(channels + others, height, width);
      for (let pixel = 0; pixel < height * width; pixel++) {
        out.values.set(x.values.subarray(pixel * channels, (pixel + 1) * channels), pixel * (channels + others));
        out.values.set(y.values.subarray(pixel * others, (pixel + 1) * others), pixel * (channels + others) + channels);
      }
      return out;
    }
    default:
      throw new Error(`no such operation: ${node.op}`);
  }
}

// The sums of a convolution, and then the factor and the bias of each channel, rounded together.
function scaleSums(node, inputs, folded) {
  const { factor, bias } = folded,
    out = compute(node, inputs, { ...folded, factor: null, bias: new Float32Array(bias.length) });
  for (let k = 0; k < out.values.length; k++) {
    const c = k % bias.length;
    out.values[k] = fma(out.values[k], factor[c], bias[c]);
  }
  return out;
}

// What `sumProducts` computes, for weights that are infinite or NaN, too.
function sumSlowly(x, first, weight, bias, count, block, out, start) {
  for (let o = 0; o < bias.length; o++) out[start + o] = sumTerms(x, first, weight, o * count, count, block) + bias[o];
}

function empty(channels, height, width) {
  return { values: new Float32Array(channels * height * width), shape: [channels, height, width] };
}

// The terms of a window in the order ky, kx, input channel: where each reads, or -1 outside the map.
export function listReads(window, row, column, channels) {
  const reads = new Int32Array(window.kernel[0] * window.kernel[1] * channels.length).fill(-1);
  let term = 0;
  for (let ky = 0; ky < window.kernel[0]; ky++) {
    const y = row * window.stride - window.top + ky * window.dilation;
    for (let kx = 0; kx < window.kernel[1]; kx++) {
      const x = column * window.stride - window.left + kx * window.dilation;
      const isInside = y >= 0 && y < window.height && x >= 0 && x < window.width;
      for (const channel of channels) {
        if (isInside) reads[term] = (y * window.width + x) * channels.total + channel;
        term++;
      }
    }
  }
  return reads;
}

export function range(count, total = count, first = 0) {
  const channels = Array.from({ length: count }, (_, k) => first + k);
  channels.total = total;
  return channels;
}

function convolve(x, window, folded, block) {
  const outputs = folded.bias.length,
    out = empty(outputs, window.outHeight, window.outWidth);
  const every = range(x.shape[0]),
    sum = folded.isFinite ? sumProducts : sumSlowly;
  const patch = new Float32Array(folded.count),
    isInside = new Uint8Array(folded.count);
  for (let row = 0, start = 0; row < window.outHeight; row++) {
    for (let column = 0; column < window.outWidth; column++, start += outputs) {
      const reads = listReads(window, row, column, every);
      let skipped = 0;
      for (let k = 0; k < patch.length; k++) {
        const isSkipped = reads[k] < 0;
        isInside[k] = isSkipped ? 0 : 1;
        patch[k] = isSkipped ? 0 : x.values[reads[k]];
        skipped += isSkipped ? 1 : 0;
      }
      if (skipped === 0 || folded.isFinite) {
        sum(patch, 0, folded.weight, folded.bias, folded.count, block, out.values, start);
        continue;
      }
      for (let o = 0; o < outputs; o++) {
        const total = sumTerms(patch, 0, folded.weight, o * folded.count, folded.count, block, isInside);
        out.values[start + o] = total + folded.bias[o];
      }
    }
  }
  return out;
}

function filter(x, window, folded, block) {
  const channels = x.shape[0],
    taps = folded.count;
  const out = empty(channels, window.outHeight, window.outWidth);
  const byTap = new Float32Array(folded.weight.length); // (ky, kx, channel)
  for (let c = 0; c < channels; c++)
    for (let k = 0; k < taps; k++) byTap[k * channels + c] = folded.weight[c * taps + k];
  const total = new Float32Array(channels),
    patch = new Float32Array(taps),
    isInside = new Uint8Array(taps);
  const first = range(1, channels);
  for (let row = 0, start = 0; row < window.outHeight; row++) {
    for (let column = 0; column < window.outWidth; column++, start += channels) {
      const reads = listReads(window, row, column, first);
      total.fill(0);
      let isHalfway = taps > block;
      for (let k = 0; k < taps; k++)
        if (reads[k] >= 0 && addTap(x.values, reads[k], byTap, k * channels, total)) isHalfway = true;
      for (let c = 0; c < channels; c++) {
        if (isHalfway) {
          for (let k = 0; k < taps; k++) {
            isInside[k] = reads[k] >= 0 ? 1 : 0;
            patch[k] = isInside[k] ? x.values[reads[k] + c] : 0;
          }
          total[c] = sumTerms(patch, 0, folded.weight, c * taps, taps, block, isInside);
        }
        out.values[start + c] = total[c] + folded.bias[c];
      }
    }
  }
  return out;
}

// Add one tap to the sums of all channels; tell whether any came halfway between two float32 (see `fma`).
function addTap(x, from, weight, at, total) {
  let isHalfway = 0;
  for (let c = 0; c < total.length; c++) {
    const s = x[from + c] * weight[at + c] + total[c],
      r = fround(s),
      e = s + (s - r);
    if (fround(e) === e && e !== r) isHalfway = 1;
    total[c] = r;
  }
  return isHalfway === 1;
}

function average(x, window, precision) {
  const channels = x.shape[0],
    out = empty(channels, window.outHeight, window.outWidth);
  const round = precision === "float32" ? fround : (value) => value;
  const first = range(1, channels);
  for (let row = 0, start = 0; row < window.outHeight; row++) {
    for (let column = 0; column < window.outWidth; column++, start += channels) {
      const reads = listReads(window, row, column, first);
      for (let c = 0; c < channels; c++) {
        let total = 0;
        for (const read of reads) total = round(total + x.values[read + c]);
        out.values[start + c] = total / reads.length;
      }
    }
  }
  return out;
}

// For each of `outSize` pixels its two neighbours among `size`, and the weight of the second.
export function interpolationPoint(size, outSize, alignCorners, index) {
  const position = alignCorners
    ? index * (outSize > 1 ? (size - 1) / (outSize - 1) : 0)
    : Math.max((index + 0.5) * (size / outSize) - 0.5, 0);
  const first = Math.min(Math.trunc(position), size - 1);
  const second = Math.min(first + 1, size - 1);
  return [first, second, second > first ? position - first : 0];
}

function resize(x, height, width, alignCorners) {
  const [channels, oldHeight, oldWidth] = x.shape,
    out = empty(channels, height, width);
  for (let row = 0, k = 0; row < height; row++) {
    const [upper, lower, down] = interpolationPoint(oldHeight, height, alignCorners, row);
    for (let column = 0; column < width; column++) {
      const [left, right, across] = interpolationPoint(oldWidth, width, alignCorners, column);
      for (let c = 0; c < channels; c++, k++) {
        if (oldHeight === 1 && oldWidth === 1) {
          out.values[k] = x.values[c];
          continue;
        }
        const at = (y, z) => x.values[(y * oldWidth + z) * channels + c];
        const above = at(upper, left) * (1 - across) + at(upper, right) * across;
        const below = at(lower, left) * (1 - across) + at(lower, right) * across;
        out.values[k] = above * (1 - down) + below * down;
      }
    }
  }
  return out;
}

export function roundToGrid(x, { low, high, step, zero }) {
  const clamped = x < low ? low : x > high ? high : x;
  const steps = fround(fround(fround(fround(clamped - low) / step) - zero) + 0.5);
  return fround(Math.floor(steps) * step);
}
