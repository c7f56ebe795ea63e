// The curves of the losses, and the distributions of z, a and δ.
import { CLASS_COLOURS, fit, make, rgb, short, theme } from './draw.js';
import { t } from './text.js';

const EDGE = { left: 40, right: 10, top: 8, bottom: 20 };

export class CurveView {
  constructor(canvas, onPick) {
    this.canvas = canvas;
    this.kind = 'loss';
    this.steps = [];
    if (onPick) {
      canvas.addEventListener('click', (event) => {
        const share = (event.offsetX - EDGE.left) / (canvas.clientWidth - EDGE.left - EDGE.right);
        const at = Math.round(Math.max(0, Math.min(1, share)) * (this.steps.length - 1));
        if (this.steps.length) onPick(this.steps[at]);
      });
    }
  }

  draw(setup, frame) {
    const { canvas } = this;
    const [w, h] = [canvas.clientWidth, canvas.clientHeight];
    const context = fit(canvas, w, h);
    context.clearRect(0, 0, w, h);
    const { shape, data } = frame.arrays.curve;
    const count = shape[1];
    const column = (name) => {
      const i = setup.curve.indexOf(name);
      return data.subarray(i * count, (i + 1) * count);
    };
    this.steps = Array.from(column('step'));
    const lines = this.kind === 'loss'
      ? [['train_loss', 1, []], ['valid_loss', 0, [6, 4]]]
      : [['valid_score', 0, [6, 4]]];
    const { text, faint, line } = theme();
    context.font = '11px system-ui, sans-serif';
    const box = { x: EDGE.left, y: EDGE.top, w: w - EDGE.left - EDGE.right, h: h - EDGE.top - EDGE.bottom };
    context.strokeStyle = line;
    context.lineWidth = 1;
    context.strokeRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1);
    if (count < 2) {
      context.fillStyle = faint;
      context.textAlign = 'center';
      context.fillText(t('no_curve'), w / 2, h / 2);
      return;
    }
    let [low, high] = this.kind === 'loss' ? [0, 0] : [0, 1];
    for (const [name] of lines) {
      for (const v of column(name)) {
        if (Number.isFinite(v)) [low, high] = [Math.min(low, v), Math.max(high, v)];
      }
    }
    if (low < -1) low = -1; // r2 may begin far below
    if (high <= low) high = low + 1;
    const epochs = column('epoch');
    const [first, last] = [epochs[0], epochs[count - 1]];
    context.save();
    context.beginPath();
    context.rect(box.x, box.y, box.w, box.h);
    context.clip();
    for (const [name, colour, dash] of lines) {
      const values = column(name);
      context.beginPath();
      let isDown = false;
      for (let i = 0; i < count; i++) {
        if (!Number.isFinite(values[i])) continue;
        const x = box.x + (box.w * i) / (count - 1);
        const y = box.y + box.h * (1 - (values[i] - low) / (high - low));
        if (isDown) context.lineTo(x, y);
        else context.moveTo(x, y);
        isDown = true;
      }
      context.strokeStyle = rgb(CLASS_COLOURS[colour]);
      context.lineWidth = 2;
      context.setLineDash(dash);
      context.stroke();
    }
    context.restore();
    context.setLineDash([]);
    context.fillStyle = faint;
    context.textAlign = 'right';
    context.textBaseline = 'top';
    context.fillText(short(high), box.x - 4, box.y);
    context.textBaseline = 'bottom';
    context.fillText(short(low), box.x - 4, box.y + box.h);
    context.textBaseline = 'top';
    context.textAlign = 'left';
    context.fillText(String(first), box.x, box.y + box.h + 4);
    context.textAlign = 'right';
    context.fillText(String(last), box.x + box.w, box.y + box.h + 4);
    context.textAlign = 'center';
    context.fillStyle = text;
    context.fillText(t('epoch'), box.x + box.w / 2, box.y + box.h + 4);
  }
}

export function drawHistograms(table, frame) {
  const parts = frame.histograms || [];
  if (table.childElementCount !== parts.length + 1) {
    table.replaceChildren(
      make('tr', {}, make('th', { text: t('layer') }), ...['z', 'a', 'δ'].map((s) => make('th', { text: s }))),
      ...parts.map((_, i) => make('tr', {}, make('th', { scope: 'row', text: String(i + 2) }),
        ...['z', 'a', 'delta'].map((name) => make('td', {},
          make('canvas', { class: 'bars', role: 'img', 'data-name': name }), make('small', {}))))),
    );
  }
  parts.forEach((part, i) => {
    const row = table.children[i + 1];
    ['z', 'a', 'delta'].forEach((name, k) => {
      const cell = row.children[k + 1];
      const { low, high, counts } = part[name];
      drawBars(cell.firstChild, counts, low, high);
      cell.lastChild.textContent = `${short(low)} … ${short(high)}`;
      cell.firstChild.setAttribute('aria-label', `${name} ${short(low)} … ${short(high)}`);
    });
  });
}

function drawBars(canvas, counts, low, high) {
  const [w, h] = [canvas.clientWidth || 70, canvas.clientHeight || 24];
  const context = fit(canvas, w, h);
  context.clearRect(0, 0, w, h);
  const most = Math.max(1, ...counts);
  const width = w / counts.length;
  counts.forEach((count, i) => {
    const middle = low + ((high - low) * (i + 0.5)) / counts.length;
    context.fillStyle = rgb(CLASS_COLOURS[middle < 0 ? 0 : 1]);
    const height = count ? Math.max(1, (h - 1) * Math.sqrt(count / most)) : 0;
    context.fillRect(i * width, h - height, Math.max(1, width - 0.7), height);
  });
}

// An activation (solid) and its slope (dashed), with the units of a row on it.
export function drawPhi(canvas, phi, units, focus) {
  const [w, h] = [canvas.clientWidth || 240, canvas.clientHeight || 150];
  const context = fit(canvas, w, h);
  const box = { x: 38, y: 8, w: w - 46, h: h - 26 };
  const all = [...phi.a, ...phi.slope, 0].filter(Number.isFinite);
  const [low, high] = [Math.max(-3, Math.min(...all)), Math.min(6, Math.max(...all))];
  const [z0, z1] = [phi.z[0], phi.z[phi.z.length - 1]];
  const at = (z, v) => [
    box.x + (box.w * (z - z0)) / (z1 - z0),
    box.y + box.h * (1 - (v - low) / (high - low || 1)),
  ];
  const within = (v, least, most) => Math.max(least, Math.min(most, v));
  const { text, faint, line } = theme();
  context.clearRect(0, 0, w, h);
  context.strokeStyle = line;
  context.lineWidth = 1;
  context.strokeRect(box.x + 0.5, box.y + 0.5, box.w - 1, box.h - 1);
  context.beginPath();
  context.moveTo(...at(z0, 0));
  context.lineTo(...at(z1, 0));
  context.moveTo(...at(0, low));
  context.lineTo(...at(0, high));
  context.stroke();
  context.save();
  context.beginPath();
  context.rect(box.x, box.y - 1, box.w, box.h + 2);
  context.clip();
  for (const [values, colour, dash] of [[phi.slope, 0, [5, 3]], [phi.a, 1, []]]) {
    context.beginPath();
    values.forEach((v, i) => context.lineTo(...at(phi.z[i], v)));
    context.strokeStyle = rgb(CLASS_COLOURS[colour]);
    context.lineWidth = 2;
    context.setLineDash(dash);
    context.stroke();
  }
  context.restore();
  units.z.forEach((z, i) => {
    context.beginPath();
    context.arc(...at(within(z, z0, z1), within(units.a[i], low, high)), units.units[i] === focus ? 5 : 3, 0, 2 * Math.PI);
    context.fillStyle = units.units[i] === focus ? text : faint;
    context.fill();
  });
  context.fillStyle = faint;
  context.font = '11px system-ui, sans-serif';
  context.textAlign = 'right';
  context.textBaseline = 'top';
  context.fillText(short(high), box.x - 3, box.y);
  context.textBaseline = 'bottom';
  context.fillText(short(low), box.x - 3, box.y + box.h);
  context.textBaseline = 'top';
  context.textAlign = 'left';
  context.fillText(short(z0), box.x, box.y + box.h + 3);
  context.textAlign = 'right';
  context.fillText(short(z1), box.x + box.w, box.y + box.h + 3);
  context.textAlign = 'center';
  context.fillText('z', box.x + box.w / 2, box.y + box.h + 3);
}
