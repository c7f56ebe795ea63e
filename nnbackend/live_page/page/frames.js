// Frames: the length of the JSON (4 bytes), the JSON, then arrays of float32.

export function decodeFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const facts = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const arrays = {};
  let offset = 4 + length;
  for (const [name, shape] of facts.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = { shape, data: new Float32Array(buffer, offset, count) };
    offset += 4 * count;
  }
  return { ...facts, arrays };
}
