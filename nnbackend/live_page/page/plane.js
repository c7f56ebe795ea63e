// The result: the answer of the network over a plane, or its curve, with the rows.
import { CLASS_COLOURS, fit, markColour, rgb, short, signed, theme } from './draw.js';

const PAD = { left: 42, right: 8, top: 8, bottom: 26 };
let buffer = null;
const out = [0, 0, 0]; // the colour that a painter has found

function blend(from, to, share) {
  const s = share < 0 ? 0 : share > 1 ? 1 : share;
  out[0] = from[0] + (to[0] - from[0]) * s;
  out[1] = from[1] + (to[1] - from[1]) * s;
  out[2] = from[2] + (to[2] - from[2]) * s;
}

// A painter of signed values: orange below 0, blue above.
export function signedPainter(valueAt, scale) {
  const { paper } = theme();
  return (i) => {
    const v = valueAt(i);
    blend(paper, CLASS_COLOURS[v < 0 ? 0 : 1], (0.9 * Math.abs(v)) / scale);
  };
}

function bufferOf(size) {
  if (!buffer || buffer.width !== size) {
    buffer = document.createElement('canvas');
    buffer.width = buffer.height = size;
  }
  return buffer;
}

// Write colours of a square grid, whose first line is the lowest, into a canvas of its size.
// colourAt writes red, green and blue of a point into a shared array: nothing is allocated.
export function paintGrid(canvas, size, colourAt) {
  if (canvas.width !== size || !canvas.image) {
    canvas.width = canvas.height = size;
    canvas.image = canvas.getContext('2d').createImageData(size, size);
    canvas.image.data.fill(255);
  }
  const { data } = canvas.image;
  for (let row = 0; row < size; row++) {
    let at = 4 * (size - 1 - row) * size;
    for (let column = 0; column < size; column++, at += 4) {
      colourAt(row * size + column);
      data[at] = out[0];
      data[at + 1] = out[1];
      data[at + 2] = out[2];
    }
  }
  canvas.getContext('2d').putImageData(canvas.image, 0, 0);
}

export function targetRange(setup) {
  const y = setup.data.points.y;
  let [low, high] = [Infinity, -Infinity];
  for (const v of y) {
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return [low, high > low ? high : low + 1];
}

function resultPainter(setup, result) {
  const [outputs, points] = result.shape;
  const { data } = result;
  const { paper, depth } = theme();
  if (setup.data.task !== 'classification') {
    const [low, high] = targetRange(setup);
    return signedPainter((i) => data[i] - (low + high) / 2, (high - low) / 2);
  }
  if (outputs === 1) {
    return (i) => {
      const lead = 2 * data[i] - 1;
      blend(paper, CLASS_COLOURS[lead < 0 ? 0 : 1], 0.06 + depth * Math.min(1, Math.abs(lead)));
    };
  }
  return (i) => {
    let best = 0;
    let first = -Infinity;
    let second = -Infinity;
    for (let k = 0; k < outputs; k++) {
      const v = data[k * points + i];
      if (v > first) {
        second = first;
        first = v;
        best = k;
      } else if (v > second) second = v;
    }
    blend(paper, CLASS_COLOURS[best], 0.06 + depth * Math.min(1, first - second));
  };
}

export class PlaneView {
  constructor(canvas) {
    this.canvas = canvas;
    this.unit = null; // index among the hidden units that are shown, or null
    this.selected = null; // a row
  }

  get box() {
    const [w, h] = [this.canvas.clientWidth, this.canvas.clientHeight];
    return { x: PAD.left, y: PAD.top, w: w - PAD.left - PAD.right, h: h - PAD.top - PAD.bottom };
  }

  toScreen(setup, point) {
    const box = this.box;
    const [[x0, x1], [y0, y1]] = this.spans(setup);
    return [
      box.x + ((point[0] - x0) / (x1 - x0)) * box.w,
      box.y + box.h - ((point[1] - y0) / (y1 - y0)) * box.h,
    ];
  }

  spans(setup) {
    if (!setup.plane.curve) return setup.plane.spans;
    const [low, high] = targetRange(setup);
    const room = 0.25 * (high - low);
    return [setup.plane.spans[0], [low - room, high + room]];
  }

  points(setup) {
    const { row, x, y, held_out: heldOut } = setup.data.points;
    return row.map((r, i) => ({
      row: r, y: y[i], isHeldOut: heldOut[i] === 1,
      at: setup.plane.curve ? [x[i][0], y[i]] : x[i],
    }));
  }

  nearest(setup, px, py) {
    let [best, least] = [null, 14 * 14];
    for (const point of this.points(setup)) {
      const [x, y] = this.toScreen(setup, point.at);
      const distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    return best;
  }

  draw(setup, frame) {
    const { canvas, box } = this;
    const context = fit(canvas, canvas.clientWidth, canvas.clientHeight);
    context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    if (!frame.arrays.result || box.w < 10) return;
    context.save();
    context.beginPath();
    context.rect(box.x, box.y, box.w, box.h);
    context.clip();
    if (setup.plane.curve) {
      context.fillStyle = rgb(theme().paper);
      context.fillRect(box.x, box.y, box.w, box.h);
    } else {
      this.drawGrid(context, setup, frame, box);
    }
    this.drawLayer(context, setup);
    this.drawSelected(context, setup);
    if (setup.plane.curve) this.drawCurve(context, setup, frame, box);
    context.restore();
    this.drawAxes(context, setup, box);
  }

  drawGrid(context, setup, frame, box) {
    const units = frame.arrays.units;
    let size = setup.plane.grid;
    let colour = resultPainter(setup, frame.arrays.result);
    if (this.unit !== null && this.unit < units.shape[0]) {
      size = Math.round(Math.sqrt(units.shape[1]));
      const part = units.data.subarray(this.unit * units.shape[1], (this.unit + 1) * units.shape[1]);
      const scale = largest(part);
      colour = signedPainter((i) => part[i], scale);
    }
    const small = bufferOf(size);
    paintGrid(small, size, colour);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = 'high';
    // The outer points of the grid lie on the border.
    const [dx, dy] = [box.w / (size - 1) / 2, box.h / (size - 1) / 2];
    context.drawImage(small, box.x - dx, box.y - dy, box.w + 2 * dx, box.h + 2 * dy);
  }

  drawCurve(context, setup, frame, box) {
    const units = frame.arrays.units;
    const isUnit = this.unit !== null && this.unit < units.shape[0];
    const count = frame.arrays.result.shape[1];
    const data = isUnit
      ? units.data.subarray(this.unit * count, (this.unit + 1) * count)
      : frame.arrays.result.data.subarray(0, count);
    const [x0, x1] = setup.plane.spans[0];
    context.lineWidth = 2.5;
    context.lineJoin = 'round';
    context.strokeStyle = rgb(CLASS_COLOURS[isUnit ? 3 : 1]);
    context.beginPath();
    for (let i = 0; i < count; i++) {
      const x = x0 + ((x1 - x0) * i) / (count - 1);
      const [px, py] = this.toScreen(setup, [x, data[i]]);
      if (i === 0) context.moveTo(px, py);
      else context.lineTo(px, Math.max(-1e4, Math.min(1e4, py)));
    }
    context.stroke();
  }

  // The rows are drawn once, into a picture of their own.
  drawLayer(context, setup) {
    const [w, h] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const key = [setup.number, w, h, theme().isDark, getLayerRatio()].join();
    if (this.layerKey !== key) {
      this.layerKey = key;
      this.layer ??= document.createElement('canvas');
      const own = fit(this.layer, w, h);
      own.clearRect(0, 0, w, h);
      this.drawRows(own, setup);
      this.rows = new Map(this.points(setup).map((point) => [point.row, point.at]));
    }
    context.drawImage(this.layer, 0, 0, w, h);
  }

  drawSelected(context, setup) {
    const at = this.rows.get(this.selected);
    if (!at) return;
    const [x, y] = this.toScreen(setup, at);
    context.beginPath();
    context.arc(x, y, 8, 0, 2 * Math.PI);
    context.strokeStyle = theme().text;
    context.lineWidth = 2;
    context.stroke();
  }

  drawRows(context, setup) {
    const isClasses = setup.data.task === 'classification';
    const [low, high] = targetRange(setup);
    const radius = setup.data.points.row.length > 500 ? 2.4 : 3.2;
    const edge = rgb(theme().paper);
    for (const point of this.points(setup)) {
      const [x, y] = this.toScreen(setup, point.at);
      let colour = markColour(0);
      if (isClasses) colour = markColour(point.y);
      else if (!setup.plane.curve) colour = signed(point.y - (low + high) / 2, (high - low) / 2);
      context.beginPath();
      mark(context, isClasses ? point.y : 0, x, y, radius);
      context.lineWidth = 1;
      if (point.isHeldOut) {
        context.fillStyle = edge;
        context.strokeStyle = rgb(colour);
      } else {
        context.fillStyle = rgb(colour);
        context.strokeStyle = edge;
      }
      context.fill();
      context.stroke();
    }
  }

  drawAxes(context, setup, box) {
    const { text, faint, line } = theme();
    const names = setup.plane.features.map((f) => setup.data.names[f]);
    const [[x0, x1], [y0, y1]] = this.spans(setup);
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.strokeRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1);
    context.font = '11px system-ui, sans-serif';
    context.fillStyle = faint;
    context.textBaseline = 'top';
    context.textAlign = 'left';
    context.fillText(short(x0), box.x, box.y + box.h + 6);
    context.textAlign = 'right';
    context.fillText(short(x1), box.x + box.w, box.y + box.h + 6);
    context.fillText(short(y1), box.x - 4, box.y);
    context.textBaseline = 'bottom';
    context.fillText(short(y0), box.x - 4, box.y + box.h);
    context.fillStyle = text;
    context.textAlign = 'center';
    context.textBaseline = 'top';
    context.fillText(clipped(names[0]), box.x + box.w / 2, box.y + box.h + 6);
    context.save();
    context.translate(box.x - 8, box.y + box.h / 2);
    context.rotate(-Math.PI / 2);
    context.textBaseline = 'bottom';
    context.fillText(clipped(setup.plane.curve ? 'y' : names[1]), 0, 0);
    context.restore();
  }
}

function getLayerRatio() {
  return Math.min(window.devicePixelRatio || 1, 2);
}

function clipped(name) {
  return name && name.length > 24 ? `${name.slice(0, 23)}…` : name || '';
}

export function largest(values) {
  let most = 1e-6;
  for (const v of values) {
    const size = Math.abs(v);
    if (size > most) most = size;
  }
  return most;
}

// Classes differ in shape as well as in colour.
export function mark(context, kind, x, y, r) {
  const k = kind % 4;
  if (k === 0) context.arc(x, y, r, 0, 2 * Math.PI);
  else if (k === 1) context.rect(x - r * 0.9, y - r * 0.9, 1.8 * r, 1.8 * r);
  else if (k === 2) {
    context.moveTo(x, y - 1.2 * r);
    context.lineTo(x + 1.1 * r, y + 0.9 * r);
    context.lineTo(x - 1.1 * r, y + 0.9 * r);
    context.closePath();
  } else {
    context.moveTo(x, y - 1.3 * r);
    context.lineTo(x + 1.3 * r, y);
    context.lineTo(x, y + 1.3 * r);
    context.lineTo(x - 1.3 * r, y);
    context.closePath();
  }
}
