// The box in which weights and biases are edited.
import { make } from './draw.js';
import { t } from './text.js';

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
      all.length > 1 ? `${t('piece')} ${piece + 1}` : 'w',
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
      fields.push(this.field(`${t('bias')}${of}`, { do: 'bias', layer, unit, piece }, (frame) => this.network.biasAt(frame, place, piece)));
      this.state.setup.layers[layer - 2].shown.forEach((input, k) => fields.push(this.field(
        `w ${input + 1} → ${unit + 1}${of}`, { do: 'weight', layer, unit, input, piece },
        (frame) => this.network.weightAt(frame, { layer, j, k }, piece),
      )));
    }
    this.open(t('unit_of', { j: unit + 1, l: layer }), fields, event);
  }

  pieces(layer) {
    return Array.from({ length: this.state.setup.layers[layer - 1].pieces }, (_, i) => i);
  }

  field(label, command, read) {
    const box = make('input', { type: 'number', step: 'any', 'aria-label': label });
    const slider = make('input', { type: 'range', min: -5, max: 5, step: 0.05, 'aria-label': label, tabindex: -1 });
    const change = (value) => {
      if (Number.isFinite(value)) this.sendSoon({ ...command, value });
    };
    box.addEventListener('change', () => change(box.valueAsNumber));
    slider.addEventListener('input', () => {
      box.value = slider.value;
      change(slider.valueAsNumber);
    });
    return { node: make('div', { class: 'value' }, make('span', { text: label }), slider, box), box, slider, read };
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
    this.root.style.left = `${Math.max(8, Math.min(x + 14, window.innerWidth - 280))}px`;
    this.root.style.top = `${Math.max(8, Math.min(y + 10, window.innerHeight - this.root.offsetHeight - 8))}px`;
    if (this.state.frame) this.draw(this.state.frame);
    fields[0].box.focus();
    fields[0].box.select();
  }

  draw(frame) {
    for (const { box, slider, read } of this.rows) {
      const value = read(frame);
      if (!Number.isFinite(value)) continue;
      if (document.activeElement !== box || box.value === '') box.value = Number(value.toPrecision(6));
      if (document.activeElement !== slider) slider.value = value;
    }
  }
}
