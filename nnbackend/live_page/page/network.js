// The network: units with their pictures, weights as lines by sign and size.
import { CLASS_COLOURS, fit, make, number, rgb, svg, theme } from './draw.js';
import { largest, paintGrid, signedPainter } from './plane.js';
import { t } from './text.js';

const HEAD = 108; // height of the controls above a layer
const GAP = 12;

export class NetworkView {
  constructor(root, options = {}) {
    this.root = root;
    this.onHover = options.onHover || (() => {});
    this.onWeight = options.onWeight || null;
    this.onUnit = options.onUnit || null;
    this.headOf = options.headOf || null; // makes the controls above a layer
    this.lines = [];
    this.units = [];
    this.active = [];
  }

  // Lay out the layers again: after a change of the network, or of the width of the page.
  build(setup) {
    this.setup = setup;
    const layers = setup.layers;
    const head = !this.headOf ? 30 : setup.fixed.length ? 56 : HEAD;
    const tallest = Math.max(...layers.map((l) => l.shown.length + (l.width > l.shown.length ? 0.6 : 0)));
    const size = Math.max(22, Math.min(44, Math.floor((420 - GAP) / tallest) - GAP));
    const isNarrow = this.root.clientWidth < 480;
    const column = Math.max(this.headOf ? (isNarrow ? 88 : 104) : 66, size + 40);
    const width = Math.max(this.root.clientWidth || 600, layers.length * column);
    const height = head + tallest * (size + GAP) + GAP + 4;
    this.size = size;
    this.picture = svg('svg', { class: 'lines', width, height, 'aria-hidden': this.onWeight ? 'false' : 'true' });
    this.canvas = make('canvas', { class: 'strokes', 'aria-hidden': 'true' });
    this.board = make('div', { class: 'board' }, this.canvas, this.picture);
    [this.width, this.height, this.over, this.inputsKey] = [width, height, null, ''];
    this.board.style.width = `${width}px`;
    this.board.style.height = `${height}px`;
    this.places = layers.map((layer, l) => {
      const x = ((l + 0.5) * width) / layers.length;
      const total = layer.shown.length * (size + GAP) - GAP;
      const top = head + (tallest * (size + GAP) - total) / 2;
      return layer.shown.map((_, j) => [x, top + j * (size + GAP) + size / 2]);
    });
    this.makeLines(layers);
    this.units = layers.map((layer, l) => layer.shown.map((unit, j) => this.makeUnit(layer, l, unit, j)));
    layers.forEach((layer, l) => this.makeHead(layer, l, ((l + 0.5) * width) / layers.length, column, height));
    this.root.replaceChildren(this.board);
    this.mark(this.active);
  }

  makeLines(layers) {
    this.lines = [];
    for (let l = 1; l < layers.length; l++) {
      const group = svg('g', { class: 'weights', 'data-layer': l + 1 });
      const found = [];
      layers[l].shown.forEach((unit, j) => layers[l - 1].shown.forEach((below, k) => {
        const [x0, y0] = this.places[l - 1][k];
        const [x1, y1] = this.places[l][j];
        const [a, b] = [x0 + this.size / 2, x1 - this.size / 2];
        const middle = (a + b) / 2;
        const path = `M${a} ${y0}C${middle} ${y0} ${middle} ${y1} ${b} ${y1}`;
        const line = { path: new Path2D(path), width: 1, alpha: 1, colour: 0 };
        const place = { layer: l + 1, unit, input: below, j, k };
        if (this.onWeight) {
          const hit = svg('path', { d: path, class: 'hit' });
          hit.addEventListener('pointerenter', () => this.onHover({ weight: place, line, node: hit }));
          hit.addEventListener('pointerleave', () => this.onHover(null));
          hit.addEventListener('click', (event) => this.onWeight(place, event));
          group.append(hit);
        }
        found.push({ line, place });
      }));
      this.picture.append(group);
      this.lines.push({ layer: l + 1, group, found, inputs: layers[l - 1].shown.length });
    }
  }

  makeUnit(layer, l, unit, j) {
    const [x, y] = this.places[l][j];
    const canvas = make('canvas', { 'aria-hidden': 'true' });
    const isInput = l === 0;
    const isOutput = l === this.setup.layers.length - 1;
    const name = isInput ? this.setup.data.names[unit] : String(unit + 1);
    const node = make(this.onUnit ? 'button' : 'div', {
      class: `unit${isInput ? ' input' : ''}${isOutput ? ' output' : ''}`,
      type: this.onUnit ? 'button' : null,
      'aria-label': `${t('unit_of', { j: unit + 1, l: l + 1 })}${isInput ? `: ${name}` : ''}`,
      'data-layer': l + 1, 'data-unit': unit,
    }, canvas);
    if (isInput) node.append(make('span', { class: 'name', text: name }));
    if (isOutput && this.setup.data.classes.length && layer.width > 1) {
      node.append(make('span', { class: 'name', text: this.setup.data.classes[unit] ?? '' }));
    }
    node.style.left = `${x - this.size / 2}px`;
    node.style.top = `${y - this.size / 2}px`;
    node.style.width = node.style.height = `${this.size}px`;
    const place = { layer: l + 1, unit, j };
    if (this.onUnit) {
      node.addEventListener('click', (event) => this.onUnit(place, event));
      node.addEventListener('pointerenter', () => this.onHover({ unit: place, node }));
      node.addEventListener('pointerleave', () => this.onHover(null));
      node.addEventListener('focus', () => this.onHover({ unit: place, node }));
      node.addEventListener('blur', () => this.onHover(null));
    }
    this.board.append(node);
    return { node, canvas, place };
  }

  makeHead(layer, l, x, column, height) {
    const isLast = l === this.setup.layers.length - 1;
    const kind = t(l === 0 ? 'input' : isLast ? 'output' : 'hidden');
    const head = make('div', { class: 'head' }, make('b', { text: `${t('layer')} ${l + 1}` }), make('small', { text: kind }));
    head.style.left = `${x - column / 2}px`;
    head.style.width = `${column}px`;
    if (this.headOf) head.append(...this.headOf(layer, l));
    this.board.append(head);
    if (layer.width > layer.shown.length) {
      const last = this.places[l][this.places[l].length - 1];
      const more = make('div', { class: 'more', text: t('more_units', { n: layer.width - layer.shown.length }) });
      more.style.left = `${x - column / 2}px`;
      more.style.width = `${column}px`;
      more.style.top = `${Math.min(height - 20, last[1] + this.size / 2 + 4)}px`;
      this.board.append(more);
    }
  }

  draw(frame) {
    let most = 1;
    for (const { layer } of this.lines) {
      const w = frame.arrays[`w${layer}`];
      if (w) most = Math.max(most, largest(w.data));
    }
    for (const { layer, found, inputs } of this.lines) {
      const w = frame.arrays[`w${layer}`];
      const units = w.shape[1];
      for (const { line, place } of found) {
        let value = 0;
        for (let piece = 0; piece < w.shape[0]; piece++) {
          const v = w.data[(piece * units + place.j) * inputs + place.k];
          if (Math.abs(v) > Math.abs(value)) value = v;
        }
        const share = Math.abs(value) / most;
        line.colour = value < 0 ? 0 : 1;
        line.width = 0.5 + 6 * share;
        line.alpha = 0.25 + 0.65 * Math.sqrt(share);
      }
    }
    const context = fit(this.canvas, this.width, this.height);
    context.clearRect(0, 0, this.width, this.height);
    this.strokeLines(context);
    this.drawPictures(frame);
  }

  strokeLines(context) {
    const colours = CLASS_COLOURS.map(rgb);
    for (const { found } of this.lines) {
      for (const { line } of found) {
        const isOver = line === this.over;
        context.globalAlpha = isOver ? 1 : line.alpha;
        context.strokeStyle = isOver ? theme().text : colours[line.colour];
        context.lineWidth = isOver ? line.width + 1.5 : line.width;
        context.stroke(line.path);
      }
    }
    context.globalAlpha = 1;
  }

  drawPictures(frame) {
    const { setup } = this;
    const { data, shape } = frame.arrays.units;
    let at = 0;
    for (let l = 1; l < this.units.length - 1; l++) {
      for (const unit of this.units[l]) {
        const part = data.subarray(at * shape[1], (at + 1) * shape[1]);
        this.paint(unit.canvas, part, shape[1]);
        unit.index = at;
        at += 1;
      }
    }
    const result = frame.arrays.result;
    const isClasses = setup.data.task === 'classification';
    this.units[this.units.length - 1].forEach((unit) => {
      const k = unit.place.unit;
      if (k >= result.shape[0]) return;
      const part = result.data.subarray(k * result.shape[1], (k + 1) * result.shape[1]);
      this.paint(unit.canvas, part, result.shape[1], isClasses ? 0.5 : 0);
    });
    this.paintInputs();
  }

  // An input's picture is its own value over the plane.
  paintInputs() {
    const { setup } = this;
    const key = String(theme().isDark);
    if (this.inputsKey === key) return;
    this.inputsKey = key;
    if (setup.plane.curve) {
      this.paintLine(this.units[0][0].canvas, Float32Array.from({ length: 9 }, (_, i) => i - 4), 9);
      return;
    }
    for (const unit of this.units[0]) {
      const axis = setup.plane.features.indexOf(unit.place.unit);
      if (axis < 0) continue;
      const [low, high] = setup.plane.spans[axis];
      const share = (i) => (axis === 0 ? i % 16 : Math.floor(i / 16)) / 15;
      const scale = Math.max(Math.abs(low), Math.abs(high)) || 1;
      paintGrid(unit.canvas, 16, signedPainter((i) => low + (high - low) * share(i), scale));
    }
  }

  paint(canvas, part, count, middle = 0) {
    if (this.setup.plane.curve) {
      this.paintLine(canvas, part, count);
      return;
    }
    const size = Math.round(Math.sqrt(count));
    let scale = 1e-6;
    for (const v of part) scale = Math.max(scale, Math.abs(v - middle));
    paintGrid(canvas, size, signedPainter((i) => part[i] - middle, scale));
  }

  paintLine(canvas, part, count) {
    if (canvas.width !== 64) canvas.width = canvas.height = 64;
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, 64, 64);
    const scale = largest(part);
    context.strokeStyle = rgb(CLASS_COLOURS[1]);
    context.lineWidth = 4;
    context.beginPath();
    for (let i = 0; i < count; i++) context.lineTo((64 * i) / (count - 1), 32 - (28 * part[i]) / scale);
    context.stroke();
  }

  // Highlight the layers of the step under way.
  mark(layers) {
    this.active = layers;
    for (const row of this.units) {
      for (const { node, place } of row) node.classList.toggle('active', layers.includes(place.layer));
    }
    for (const { group, layer } of this.lines) group.classList.toggle('active', layers.includes(layer));
  }

  focus(place) {
    for (const row of this.units) {
      for (const unit of row) {
        unit.node.classList.toggle('focus', unit.place.layer === place.layer && unit.place.unit === place.unit);
      }
    }
  }

  weightAt(frame, place, piece = 0) {
    const w = frame.arrays[`w${place.layer}`];
    return w ? w.data[(piece * w.shape[1] + place.j) * w.shape[2] + place.k] : NaN;
  }

  biasAt(frame, place, piece = 0) {
    const b = frame.arrays[`b${place.layer}`];
    return b ? b.data[piece * b.shape[1] + place.j] : NaN;
  }

  indexOf(place) {
    const unit = this.units[place.layer - 1]?.find((u) => u.place.unit === place.unit);
    return unit?.index ?? null;
  }

  // Draw lines and units into a picture.
  drawInto(context) {
    this.strokeLines(context);
    this.units.forEach((row, l) => row.forEach(({ canvas }, j) => {
      const [x, y] = this.places[l][j];
      if (canvas.width) context.drawImage(canvas, x - this.size / 2, y - this.size / 2, this.size, this.size);
    }));
  }
}

export function weightText(place, value, piece, pieces) {
  const of = pieces > 1 ? ` (${t('piece')} ${piece + 1})` : '';
  return `w${place.layer}: ${place.input + 1} → ${place.unit + 1}${of} = ${number(value)}`;
}

