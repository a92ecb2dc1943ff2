// Activation functions: clamps, and curves in float64, rounded once; term for term those of the engine.

import { fround } from "./fma.js";

export const CLAMPS = { linear: [-Infinity, Infinity], relu: [0, Infinity], relu6: [0, 6] };

const LOG2_E = 1.4426950408889634;
const LN2_HIGH = 0.69314718036912381649;
const LN2_LOW = 1.90821492927058770002e-10;
const TAYLOR = [];
for (let n = 0, factorial = 1; n <= 14; n++, factorial *= n) TAYLOR.unshift(1 / factorial);
const ERFC = [
  -7.106929108334487e-13, 9.395932046122793e-11, -2.9766387405215563e-10, -2.776307855150726e-10, 3.3658288322023846e-9,
  -7.352472518437774e-9, -6.513118485109626e-9, 8.64694333890086e-8, -1.9838585196813037e-7, -2.823393880271042e-7,
  2.838143104316882e-6, -4.271117396357692e-6, -2.2700159899704513e-5, 0.00010054189868280341, 0.00013358426953576807,
  -0.0016653643667956324, -0.0016702444046923937, 0.0329934294778909, 0.16940759095449764, 0.42218758361344777,
  0.3785374169292397,
];
const SQRT_HALF = 0.7071067811865476;

function powerOfTwo(k) {
  const bits = new DataView(new ArrayBuffer(8));
  bits.setUint32(0, (k + 1023) << 20);
  return bits.getFloat64(0);
}

export function exponential(x) {
  if (!(Math.abs(x) < 700)) return x > 0 ? Infinity : x < 0 ? 0 : x;
  const k = Math.floor(x * LOG2_E + 0.5);
  const r = x - k * LN2_HIGH - k * LN2_LOW;
  let series = 0 * r;
  for (const coefficient of TAYLOR) series = series * r + coefficient;
  return series * powerOfTwo(k);
}

export const sigmoid = (x) => 1 / (1 + exponential(-x));

function tanh(x) {
  const square = x * x;
  const series = x * (1 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835)))));
  return Math.abs(x) < 0.02 ? series : 2 / (1 + exponential(-2 * x)) - 1;
}

function gelu(x) {
  const size = Math.abs(x) * SQRT_HALF;
  const z = size < 6 ? size : 6;
  const u = (2 / (2 + z) - 0.625) / 0.375;
  let tail = 0 * u;
  for (const coefficient of ERFC) tail = tail * u + coefficient;
  tail = size >= 6 ? 0 : tail * exponential(-z * z);
  return 0.5 * x * (x < 0 ? tail : 2 - tail);
}

const CURVES = {
  leaky_relu: (x) => (x < 0 ? x * 0.01 : x),
  silu: (x) => x * sigmoid(x),
  hardswish: (x) => (x * (x + 3 < 0 ? 0 : x + 3 > 6 ? 6 : x + 3)) / 6,
  gelu,
  sigmoid,
  tanh,
};

// What the named activation makes of a float32.
export function activate(x, name) {
  if (name in CLAMPS) {
    const [low, high] = CLAMPS[name];
    return x < low ? low : x > high ? high : x;
  }
  return fround(CURVES[name](x));
}
