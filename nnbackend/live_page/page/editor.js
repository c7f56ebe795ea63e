// The box in which weights and biases are edited.
import { make } from './draw.js';
import { indexed, m } from './formulas.js';
import { numberField } from './numbers.js';
import { t } from './text.js';

// The symbol of a weight as on the slides: the unit of its layer, then that of the layer before.
function weightName({ layer, unit, input }) {
  const node = m('math', indexed('w', layer, unit + 1, input + 1));
  node.setAttribute('aria-label', `w^${layer}_{${unit + 1},${input + 1}}`);
  return [node];
}

// A number that fits the box.
function brief(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(4);
  return String(Number(value.toPrecision(6)));
}

export class Editor {
  constructor(root, ask, network, state) {
    Object.assign(this, { root, ask, network, state, rows: [] });
    this.waiting = null;
    root.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.close();
    });
  }

  close() {
    if (this.root.hidden) return;
    const hadFocus = this.root.contains(document.activeElement);
    this.root.hidden = true;
    this.rows = [];
    if (hadFocus) this.opener?.focus?.();
  }

  openWeight(place, event) {
    const { layer, unit, input } = place;
    const title = t('weight_of', { k: input + 1, k0: layer - 1, j: unit + 1, l: layer });
    const fields = this.pieces(layer).map((piece, _, all) => this.field(
      all.length > 1 ? [`${t('piece')} ${piece + 1}`] : weightName(place),
      { do: 'weight', layer, unit, input, piece },
      (frame) => this.network.weightAt(frame, place, piece),
    ));
    this.open(title, fields, event);
  }

  openUnit(place, event) {
    const { layer, unit, j } = place;
    const fields = [];
    for (const piece of this.pieces(layer)) {
      const of = this.pieces(layer).length > 1 ? ` ${piece + 1}` : '';
      fields.push(this.field([`${t('bias')}${of}`], { do: 'bias', layer, unit, piece }, (frame) => this.network.biasAt(frame, place, piece)));
      this.state.setup.layers[layer - 2].shown.forEach((input, k) => fields.push(this.field(
        [...weightName({ layer, unit, input }), of], { do: 'weight', layer, unit, input, piece },
        (frame) => this.network.weightAt(frame, { layer, j, k }, piece),
      )));
    }
    this.open(t('unit_of', { j: unit + 1, l: layer }), fields, event);
  }

  pieces(layer) {
    return Array.from({ length: this.state.setup.layers[layer - 1].pieces }, (_, i) => i);
  }

  field(label, command, read) {
    const name = label.map((part) => part.getAttribute?.('aria-label') ?? part).join('');
    const change = (value) => {
      this.sendSoon({ ...command, value });
    };
    const { node, box, clear } = numberField({ 'aria-label': name, change: (text) => change(Number(text)) });
    const slider = make('input', { type: 'range', min: -5, max: 5, step: 0.05, 'aria-label': name, tabindex: -1 });
    slider.addEventListener('input', () => {
      clear();
      box.value = slider.value;
      change(slider.valueAsNumber);
    });
    return { node: make('div', { class: 'value' }, make('span', {}, ...label), slider, node), box, slider, read };
  }

  // One message at a time: a slider sends many values.
  async sendSoon(command) {
    if (this.waiting) {
      this.waiting = command;
      return;
    }
    this.waiting = command;
    while (this.waiting) {
      const next = this.waiting;
      await this.ask(next);
      if (this.waiting === next) this.waiting = null;
    }
  }

  open(title, fields, event) {
    this.opener = event.currentTarget instanceof HTMLElement ? event.currentTarget : null;
    this.rows = fields;
    const close = make('button', { class: 'close', type: 'button', 'aria-label': t('close'), text: '×', onclick: () => this.close() });
    this.root.replaceChildren(make('h3', { text: title }), close, ...fields.map((f) => f.node));
    this.root.setAttribute('aria-label', title);
    this.root.hidden = false;
    const box = event.currentTarget.getBoundingClientRect();
    const x = event.clientX || box.right;
    const y = event.clientY || box.top;
    this.root.style.left = `${Math.max(8, Math.min(x + 14, window.innerWidth - 308))}px`;
    this.root.style.top = `${Math.max(8, Math.min(y + 10, window.innerHeight - this.root.offsetHeight - 8))}px`;
    if (this.state.frame) this.draw(this.state.frame);
    fields[0].box.focus();
    fields[0].box.select();
  }

  draw(frame) {
    for (const { box, slider, read } of this.rows) {
      const value = read(frame);
      if (!Number.isFinite(value)) continue;
      const isTyped = document.activeElement === box && box.value !== '';
      if (!isTyped && !box.classList.contains('wrong')) box.value = brief(value);
      if (document.activeElement !== slider) slider.value = value;
    }
  }
}
