// The arrays of the page: base64 of a zlib stream, in which bytes lie in planes, the first of every value first.

const TYPES = {
  float32: Float32Array,
  float64: Float64Array,
  uint8: Uint8Array,
  int8: Int8Array,
  int32: Int32Array,
};

// Return what reads an array {at, shape, type} out of the text of a payload.
export async function unpack(text) {
  const letters = atob(text),
    packed = new Uint8Array(letters.length);
  for (let k = 0; k < packed.length; k++) packed[k] = letters.charCodeAt(k); // Uint8Array.from takes ten times as long
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  return (ref) => {
    const type = TYPES[ref.type],
      count = ref.shape.reduce((a, b) => a * b, 1),
      width = type.BYTES_PER_ELEMENT;
    const own = new Uint8Array(count * width);
    if (width === 1) {
      own.set(bytes.subarray(ref.at, ref.at + count));
    } else {
      for (let plane = 0; plane < width; plane++) {
        for (let k = 0, from = ref.at + plane * count, to = plane; k < count; k++, to += width)
          own[to] = bytes[from + k];
      }
    }
    return { values: new type(own.buffer), shape: ref.shape };
  };
}

const CRC = new Uint32Array(256).map((_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

// CRC-32 of a map's bytes; minus zero counts as zero, and all NaNs as one.
export function checksum(values) {
  let plain = values;
  if (values instanceof Float32Array) plain = values.map((value) => (value === value ? value + 0 : NaN));
  const bytes = new Uint8Array(plain.buffer, plain.byteOffset, plain.byteLength);
  let crc = 0xffffffff;
  for (let k = 0; k < bytes.length; k++) crc = CRC[(crc ^ bytes[k]) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
