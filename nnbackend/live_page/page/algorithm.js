// The five steps of backpropagation: each formula, and below it the same with this row's numbers.
import { drawPhi } from './charts.js';
import { make, number } from './draw.js';
import { fraction, indexed, infix, m, math, mi, minus, mn, mo, parens, partial, plus, row, sum, wrapped } from './formulas.js';
import { phi, products, slope, value } from './origins.js';
import { t } from './text.js';

function table(layer, names, firstUnit) {
  const head = make('tr', {}, make('th', { text: 'j' }), ...names.map((n) => make('th', { text: n === 'delta' ? 'δ' : n === 'slope' ? 'φ′(z)' : n })));
  const rows = layer.units.map((unit, i) => make('tr', { class: unit === firstUnit ? 'here' : '' }, make('th', { scope: 'row' }, make('button', { type: 'button', class: 'link', text: String(unit + 1), 'data-unit': unit, 'aria-label': t('look_at', { j: unit + 1 }) })),
    ...names.map((n) => make('td', { text: number(layer[n][i]), 'data-n': `${n}.${unit}` }))));
  return make('table', { class: 'numbers' }, make('tbody', {}, head, ...rows));
}

const STEPS = {
  1(a, body) {
    body.append(make('p', { text: t('e1') }), math(m('msup', mi('a'), parens(m('mn', '1'))), mo('='), mi('x')));
    const shown = a.x.flatMap((v, i) => (i ? [mo(','), mn(number(v), `x.${i}`)] : [mn(number(v), `x.${i}`)]));
    const y = a.y.flatMap((v, i) => (i ? [mo(','), mn(number(v), `y.${i}`)] : [mn(number(v), `y.${i}`)]));
    body.append(math(m('msup', mi('a'), parens(m('mn', '1'))), mo('='), parens(...shown), m('mspace'), mo(';'), mi('y'), mo('='), parens(...y)));
  },
  2(a, body) {
    const f = a.focus;
    const [l, j] = [f.layer, f.unit + 1];
    body.append(make('p', { text: t('e2') }));
    body.append(math(
      indexed('z', 'l', 'j'), mo('='), sum('k'), indexed('w', 'l', 'j', 'k'), indexed('a', minus('l', 1), 'k'), mo('+'), indexed('b', 'l', 'j'),
      mo(','), indexed('a', 'l', 'j'), mo('='), phi(indexed('z', 'l', 'j')),
    ));
    body.append(wrapped(row(indexed('z', l, j), mo('=')), ...products(f.z_terms, 'z'), row(infix('+'), value(f.b, 'b')), row(infix('='), mn(number(f.z), 'z'))));
    body.append(math(indexed('a', l, j), mo('='), phi(mn(number(f.z))), mo('='), mn(number(f.a), 'a')));
    if (f.pieces > 1) body.append(make('p', { class: 'note', text: t('maxout_note', { n: f.pieces, p: f.winner + 1 }) }));
    const layer = a.layers[l - 2];
    if (layer.activation === 'softmax') body.append(make('p', { class: 'note', text: t('softmax_note') }));
    body.append(table(layer, ['z', 'a'], f.unit));
    body.append(make('p', {}, `${t('cost_is')}: C = `, make('span', { text: number(a.loss), 'data-n': 'loss' })));
  },
  3(a, body) {
    const f = a.focus;
    const [l, j] = [f.layer, f.unit + 1];
    body.append(make('p', { text: t('e3') }));
    body.append(math(
      indexed('δ', 'L', 'j'), mo('='), partial(indexed('z', 'L', 'j')), mo('='), partial(indexed('a', 'L', 'j')), mo('·'), slope(indexed('z', 'L', 'j')),
    ));
    if (a.fused) {
      const layer = a.layers[l - 2];
      body.append(make('p', { class: 'note', text: t('e3_fused', { a: layer.activation, c: a.loss_name }) }));
      body.append(math(indexed('δ', l, j), mo('='), indexed('a', l, j), mo('−'), m('msub', mi('y'), m('mn', String(j))), mo('='),
        mn(number(f.a), 'a'), mo('−'), value(f.y, 'y'), mo('='), mn(number(f.delta), 'delta')));
    } else if (f.dcda !== undefined) {
      body.append(math(indexed('δ', l, j), mo('='), value(f.dcda, 'dcda'), mo('·'), value(f.slope, 'slope'), mo('='), mn(number(f.delta), 'delta')));
    }
    body.append(table(a.layers[l - 2], ['z', 'a', 'slope', 'delta'], f.unit));
  },
  4(a, body) {
    const f = a.focus;
    const [l, j] = [f.layer, f.unit + 1];
    if (!f.delta_terms) {
      body.append(make('p', { text: t('no_hidden') }));
      return;
    }
    body.append(make('p', { text: t('e4') }));
    body.append(math(
      indexed('δ', 'l', 'j'), mo('='), slope(indexed('z', 'l', 'j')), mo('·'), sum('k'), indexed('δ', plus('l', 1), 'k'), indexed('w', plus('l', 1), 'k', 'j'),
    ));
    body.append(wrapped(row(indexed('δ', l, j), mo('='), value(f.slope, 'slope'), mo('·'), mo('(')), ...products(f.delta_terms, 'd', true), mo(')'), row(infix('='), mn(number(f.delta), 'delta'))));
    if (f.pieces > 1) body.append(make('p', { class: 'note', text: t('maxout_note', { n: f.pieces, p: f.winner + 1 }) }));
    body.append(table(a.layers[l - 2], ['z', 'slope', 'delta'], f.unit));
  },
  5(a, body) {
    const f = a.focus;
    const [l, j, k] = [f.layer, f.unit + 1, f.input + 1];
    body.append(make('p', { text: t('e5') }));
    body.append(math(
      partial(indexed('w', 'l', 'j', 'k')), mo('='), indexed('δ', 'l', 'j'), indexed('a', minus('l', 1), 'k'), mo(','),
      partial(indexed('b', 'l', 'j')), mo('='), indexed('δ', 'l', 'j'),
    ));
    body.append(math(partial(indexed('w', l, j, k)), mo('='), value(f.delta, 'delta'), mo('·'), value(f.a_below, 'a_below'), mo('='), mn(number(f.dw), 'dw'),
      m('mtext', `\u2003(${t('this_row')})`)));
    body.append(math(indexed('w', 'l', 'j', 'k'), mo('←'), indexed('w', 'l', 'j', 'k'), mo('−'), mi('η'), fraction(row(mo('∂'), mi('C')), row(mo('∂'), indexed('w', 'l', 'j', 'k')))));
    const inputs = make('select', { class: 'input-of' }, ...f.z_terms.terms.map(([input]) => make('option', { value: input, text: String(input + 1) })));
    inputs.value = f.input;
    body.append(make('label', { class: 'note' }, 'k = ', inputs));
    const u = a.update;
    if (!u) {
      body.append(make('p', { class: 'note', text: t('e5_wait') }));
      return;
    }
    body.append(make('p', { text: t('e5_update', { b: u.b, rule: u.rule, lr: number(u.lr) }) }));
    const plain = u.is_plain ? [mo('−'), mn(number(u.lr), 'lr'), mo('·'), value(u.dw, 'batch_dw'), mo('→')] : [mo('→')];
    body.append(math(partial(indexed('w', l, j, k)), mo('='), mn(number(u.dw), 'batch_dw'), mo(';'), indexed('w', l, j, k), mo(':'),
      mn(number(u.w), 'w'), ...plain, mn(number(u.new_w), 'new_w')));
    const plainBias = u.is_plain ? [mo('−'), mn(number(u.lr), 'lr'), mo('·'), value(u.db, 'batch_db'), mo('→')] : [mo('→')];
    body.append(math(partial(indexed('b', l, j)), mo('='), mn(number(u.db), 'batch_db'), mo(';'), indexed('b', l, j), mo(':'),
      mn(number(u.bias), 'bias'), ...plainBias, mn(number(u.new_bias), 'new_bias')));
    if (!u.is_plain) body.append(make('p', { class: 'note', text: t('e5_more') }));
  },
};

export class AlgorithmView {
  constructor(root, send, onHover) {
    this.root = root;
    this.send = send;
    this.tab = 2;
    this.sub = 0;
    this.last = '';
    this.expected = null;
    this.steps = root.querySelector('.steps');
    this.body = root.querySelector('.body');
    this.body.addEventListener('click', (event) => {
      const unit = event.target.dataset?.unit;
      if (unit !== undefined) this.look({ unit: Number(unit), input: 0 });
    });
    this.body.addEventListener('change', (event) => this.look({ input: Number(event.target.value) }));
    this.body.addEventListener('pointerover', (event) => {
      const node = event.target.closest?.('[data-n]');
      onHover(node ? { number: node.dataset.n || node.getAttribute('data-n'), node } : null);
    });
    this.body.addEventListener('pointerleave', () => onHover(null));
    this.facts = root.querySelector('.focus-of');
    this.buttons = [1, 2, 3, 4, 5].map((n) => {
      const button = make('button', { type: 'button', role: 'tab', 'aria-controls': 'algorithm-body', id: `step-${n}` },
        make('span', { class: 'n', text: String(n) }), ' ', make('span', { 'data-text': `s${n}`, text: t(`s${n}`) }));
      button.addEventListener('click', () => this.open(n));
      button.addEventListener('keydown', (event) => this.move(event, n));
      this.steps.append(button);
      return button;
    });
  }

  look(change) {
    const { layer, unit, input } = this.frame.algorithm.focus;
    this.send({ do: 'focus', layer, unit, input, ...change });
  }

  move(event, n) {
    const to = { ArrowRight: n + 1, ArrowLeft: n - 1 }[event.key];
    if (to >= 1 && to <= 5) {
      this.buttons[to - 1].focus();
      this.open(to);
    }
  }

  open(n) {
    this.tab = n;
    this.last = '';
    this.draw(this.setup, this.frame);
  }

  // Steps 3 and 4 are for the output and for hidden layers: take the one that a layer has.
  suit(layer) {
    this.expected = layer; // until a frame has it in focus
    const isTop = this.setup && layer === this.setup.layers.length;
    if (this.tab === 3 && !isTop) this.tab = 4;
    else if (this.tab === 4 && isTop) this.tab = 3;
  }

  // Each step needs a unit of the right layer in focus.
  focusFor(n) {
    const focus = this.frame.algorithm.focus;
    const top = this.setup.layers.length;
    if (n === 3 && focus.layer !== top) return { layer: top, unit: 0, input: 0 };
    if (n === 4 && focus.layer === top && top > 2) return { layer: top - 1, unit: 0, input: 0 };
    return null;
  }

  draw(setup, frame) {
    this.setup = setup;
    this.frame = frame;
    const a = frame.algorithm;
    if (!a) return;
    if (frame.sub !== this.sub) {
      this.sub = frame.sub;
      if (frame.sub) this.tab = frame.sub;
    }
    if (this.expected === a.focus.layer) this.expected = null;
    const wanted = this.expected ? null : this.focusFor(this.tab);
    if (wanted && this.asked !== JSON.stringify(wanted)) {
      this.asked = JSON.stringify(wanted);
      this.send({ do: 'focus', ...wanted });
    }
    if (!wanted) this.asked = '';
    const key = [this.tab, frame.slow, setup.number, document.documentElement.lang].join();
    if (key === this.last) return;
    this.last = key;
    this.buttons.forEach((button, i) => {
      button.setAttribute('aria-selected', String(i + 1 === this.tab));
      button.tabIndex = i + 1 === this.tab ? 0 : -1;
      button.classList.toggle('now', i + 1 === frame.sub);
    });
    this.facts.textContent = t('looking_at', { j: a.focus.unit + 1, l: a.focus.layer });
    const body = document.createDocumentFragment();
    if (!wanted && !this.focusFor(this.tab)) STEPS[this.tab](a, body);
    this.body.replaceChildren(body);
    this.drawActivation(a);
  }

  // Beside the table of a layer: its activation and slope, with its units.
  drawActivation(a) {
    const numbers = this.body.querySelector('.numbers');
    const { phi } = this.setup.layers[a.focus.layer - 1];
    if (!numbers || !phi) return;
    const canvas = make('canvas', { class: 'phi', role: 'img', 'aria-label': t('phi_label', { name: a.layers[a.focus.layer - 2].activation }) });
    const caption = make('p', { class: 'key' }, make('span', { class: 'line train' }), 'φ(z)', make('span', { class: 'line valid' }), 'φ′(z)');
    const beside = make('div', { class: 'beside' });
    numbers.replaceWith(beside);
    beside.append(numbers, make('div', {}, canvas, caption));
    drawPhi(canvas, phi, a.layers[a.focus.layer - 2], a.focus.unit);
  }

  // The layers that the step under way concerns.
  layers() {
    if (!this.frame?.algorithm || !this.frame.sub) return [];
    const [focus, top] = [this.frame.algorithm.focus, this.setup.layers.length];
    return { 1: [1], 2: this.setup.layers.map((_, l) => l + 1).slice(1), 3: [top], 4: this.setup.layers.map((_, l) => l + 1).slice(1, -1), 5: [focus.layer] }[this.frame.sub] || [];
  }
}
