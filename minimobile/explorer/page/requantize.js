// From a sum of products of bytes to steps of the result's scale, by LiteRT's rule, in integers.

// floor((total * multiplier + 2**30) / 2**31), and that over 2**-shift to the nearest, halves away from zero. Products
// of 62 bits do not fit a float64: the multiplier is cut into two halves of 16 bits.
export function requantize(total, multiplier, shift) {
  if (shift > 0) return requantizeLarge(total, multiplier, shift);
  const upper = Math.floor(multiplier / 65536),
    lower = multiplier - upper * 65536;
  const high = Math.floor((total * upper + Math.floor((total * lower + 2 ** 30) / 65536)) / 32768);
  if (shift === 0) return high;
  return Math.floor((high + 2 ** (-shift - 1) - (high < 0 ? 1 : 0)) / 2 ** -shift);
}

// floor(total * multiplier / 2**(31 - shift) + 1/2): LiteRT's linear layers round once.
export function requantizeOnce(total, multiplier, shift) {
  const right = BigInt(31 - shift);
  return Number((BigInt(total) * BigInt(multiplier) + (1n << (right - 1n))) >> right);
}

function requantizeLarge(total, multiplier, shift) {
  const product = (BigInt(total) << BigInt(shift)) * BigInt(multiplier);
  return Number((product + (1n << 30n)) >> 31n);
}
