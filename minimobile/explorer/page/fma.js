// Arithmetic of float32 in a language that has float64 alone: every rounding that the numeric contract asks for.

export const fround = Math.fround;
const OVERFLOW = 2 ** 128 - 2 ** 103; // halfway between the largest float32 and 2**128
export const LARGEST = 2 ** 128 - 2 ** 104; // of float32

// x * w + sum, rounded once. The product of two float32 is exact in float64. The sum is rounded to float64 first, and
// that does no harm unless it falls halfway between two float32: then the error of that rounding (two-sum of Knuth)
// tells the side. `other` is the neighbour on the far side of the sum; it is a float32 only if the sum is halfway.
export function fma(x, w, sum) {
  const product = x * w;
  const total = product + sum;
  const near = fround(total);
  const other = total + (total - near);
  if (other === near || fround(other) !== other) return near;
  const part = total - product;
  const error = (product - (total - part)) + (sum - part);
  if (error === 0) return near;
  if (Math.abs(near) === Infinity) {
    return Math.abs(total) === OVERFLOW && error > 0 !== total > 0 ? Math.sign(total) * LARGEST : near;
  }
  return error > 0 ? Math.max(near, other) : Math.min(near, other);
}

// out[start + o] = the sum over k of x[first + k] * weight[o * count + k], for every o: chains of fused multiply-adds
// over blocks of terms, the block sums added in order, then the bias. Weights have to be finite: a zero of x changes
// nothing then and is passed over. Four outputs at a time share the reads of x. Where any sum of them came near to
// halfway between two float32 (see `fma`), the four are computed once more, exactly: calling `fma` for each term takes
// 2.5 times as long.
export function sumProducts(x, first, weight, bias, count, block, out, start) {
  const outputs = bias.length;
  let o = 0;
  for (; o + 4 <= outputs; o += 4) {
    const at0 = o * count, at1 = at0 + count, at2 = at1 + count, at3 = at2 + count;
    let t0 = 0, t1 = 0, t2 = 0, t3 = 0, isHalfway = 0;
    for (let low = 0; low < count; low += block) {
      const high = Math.min(low + block, count);
      let a = 0, b = 0, c = 0, d = 0;
      for (let k = low; k < high; k++) {
        const v = x[first + k];
        if (v === 0) continue;
        const s0 = v * weight[at0 + k] + a, s1 = v * weight[at1 + k] + b;
        const s2 = v * weight[at2 + k] + c, s3 = v * weight[at3 + k] + d;
        a = fround(s0); b = fround(s1); c = fround(s2); d = fround(s3);
        const e0 = s0 + (s0 - a), e1 = s1 + (s1 - b), e2 = s2 + (s2 - c), e3 = s3 + (s3 - d);
        if (fround(e0) === e0 && e0 !== a) isHalfway = 1;
        if (fround(e1) === e1 && e1 !== b) isHalfway = 1;
        if (fround(e2) === e2 && e2 !== c) isHalfway = 1;
        if (fround(e3) === e3 && e3 !== d) isHalfway = 1;
      }
      if (low === 0) {
        t0 = a; t1 = b; t2 = c; t3 = d;
      } else {
        t0 = fround(t0 + a); t1 = fround(t1 + b); t2 = fround(t2 + c); t3 = fround(t3 + d);
      }
    }
    if (isHalfway) {
      for (let q = o; q < o + 4; q++) out[start + q] = sumTerms(x, first, weight, q * count, count, block) + bias[q];
    } else {
      out[start + o] = t0 + bias[o];
      out[start + o + 1] = t1 + bias[o + 1];
      out[start + o + 2] = t2 + bias[o + 2];
      out[start + o + 3] = t3 + bias[o + 3];
    }
  }
  for (; o < outputs; o++) out[start + o] = sumTerms(x, first, weight, o * count, count, block) + bias[o];
}

// The sum of one output; `isInside`, where it is given, tells which terms are not skipped.
export function sumTerms(x, first, weight, at, count, block, isInside = null) {
  let total = 0;
  for (let low = 0; low < count; low += block) {
    const high = Math.min(low + block, count);
    let sum = 0;
    for (let k = low; k < high; k++) {
      if (isInside === null || isInside[k]) sum = fma(x[first + k], weight[at + k], sum);
    }
    total = low === 0 ? sum : fround(total + sum);
  }
  return total;
}
