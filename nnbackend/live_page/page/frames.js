// Frames: the length of the JSON (4 bytes), the JSON, then arrays of float32; or, in a packed frame,
// of bytes that stand for low + step * byte.

export function decodeFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  let offset = 4 + length;
  for (const [name, shape, low, step] of facts.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    const isPacked = step !== undefined;
    const data = isPacked
      ? Float32Array.from(new Uint8Array(buffer, offset, count), (byte) => low + step * byte)
      : new Float32Array(buffer, offset, count);
    arrays[name] = { shape, data };
    offset += isPacked ? count : 4 * count;
  }
  return { ...facts, arrays };
}
