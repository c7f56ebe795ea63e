// Where a number comes from: its formula with this row's numbers, for the tooltip.
import { make, number } from './draw.js';
import { fraction, indexed, infix, m, mi, mn, mo, parens, partial, row, wrapped } from './formulas.js';
import { t } from './text.js';

export const phi = (z) => row(mi('φ'), parens(z));
export const slope = (z) => row(m('msup', mi('φ'), mo('′')), parens(z));

export function value(v, name) {
  return v < 0 ? parens(mn(number(v), name)) : mn(number(v), name);
}

// The sum of products, term by term, in the order of the formula; without a symbol the numbers have no names.
export function products(part, symbolOf, isReversed = false) {
  const found = [];
  const name = (end) => (symbolOf ? `${symbolOf}.${end}` : undefined);
  part.terms.forEach(([k, first, second], i) => {
    const sign = i ? [infix('+')] : [];
    const factors = [value(first, name(`${k}.0`)), value(second, name(`${k}.1`))];
    if (isReversed) factors.reverse();
    found.push(row(...sign, factors[0], mo('·'), factors[1]));
  });
  if (part.left > 0) {
    found.push(row(infix('+'), value(part.rest, name('rest')), m('mtext', `\u2002(${t('more_terms', { n: part.left })})`)));
  }
  return found;
}

const is = (...parts) => wrapped(row(...parts));
const note = (key, fields) => make('p', { text: t(key, fields) });

// A number of a unit: f has the unit's sums.
const OF_UNIT = {
  z: (a, f, l, j) => [
    note('o_z'), is(indexed('z', l, j), mo('='), row(mi('Σ'), mi('w'), mi('a')), infix('+'), mi('b')),
    wrapped(...products(f.z_terms), row(infix('+'), value(f.b)), row(infix('='), mn(number(f.z)))),
  ],
  a(a, f, l, j) {
    const name = a.layers[l - 2].activation;
    if (name === 'softmax') return [note('softmax_note'), is(indexed('a', l, j), mo('='), fraction(m('msup', mi('e'), indexed('z', l, j)), row(mi('Σ'), m('msup', mi('e'), indexed('z', l, 'k')))), mo('='), mn(number(f.a)))];
    if (name === 'maxout') return [note('maxout_note', { n: f.pieces, p: f.winner + 1 })];
    return [is(indexed('a', l, j), mo('='), phi(indexed('z', l, j)), mo('='), m('mtext', name), parens(mn(number(f.z))), mo('='), mn(number(f.a)))];
  },
  slope: (a, f, l, j) => [is(slope(indexed('z', l, j)), mo('='), slope(mn(number(f.z))), mo('='), mn(number(f.slope)))],
  delta(a, f, l, j) {
    const head = row(indexed('δ', l, j), mo('='));
    if (f.delta_terms) {
      return [note('e4'), wrapped(row(head, value(f.slope), mo('·'), mo('(')), ...products(f.delta_terms, null, true), mo(')'), row(infix('='), mn(number(f.delta))))];
    }
    if (a.fused) return [note('e3_fused', { a: a.layers[l - 2].activation, c: a.loss_name }), is(head, mn(number(f.a)), mo('−'), value(f.y), mo('='), mn(number(f.delta)))];
    return [is(head, partial(indexed('a', l, j)), mo('·'), slope(indexed('z', l, j)), mo('='), value(f.dcda), mo('·'), value(f.slope), mo('='), mn(number(f.delta)))];
  },
};

const unit = (l, j) => note('unit_of', { l, j });
const weight = (l, j, k) => note('weight_of', { l, j, k, k0: l - 1 });

// A factor of a sum: of z the weight and the activation below, of delta the weight and the delta above.
function factor(what, k, index, l, j) {
  if (what === 'z') return index ? unit(l - 1, k) : weight(l, j, k);
  return index ? unit(l + 1, k) : weight(l + 1, k, j);
}

// Return the nodes that explain the number of a name, such as z, z.3 (unit 4) or z.3.0 (its weight).
export function origin(a, name) {
  const [what, at, index] = name.split('.');
  const focus = a.focus;
  const [l, j] = [focus.layer, focus.unit + 1];
  if (what === 'x') return [note('o_x', { k: Number(at) + 1 })];
  if (what === 'y') return [note('o_y')];
  if (at === 'rest') return [note('o_rest')];
  if (index !== undefined) return [factor(what, Number(at) + 1, Number(index), l, j)];
  if (OF_UNIT[what]) {
    const f = at === undefined ? focus : a.sums.find((sum) => sum.unit === Number(at));
    return f ? OF_UNIT[what](a, f, l, f.unit + 1) : [];
  }
  const u = a.update;
  const to = (old, by, end) => [is(value(old), mo('−'), mn(number(u.lr)), mo('·'), value(by), mo('='), mn(number(end)))];
  const others = {
    b: () => [note('o_b'), unit(l, j)],
    w: () => [weight(l, j, focus.input + 1)],
    loss: () => [note('o_loss', { c: a.loss_name })],
    dcda: () => [note('o_dcda', { c: a.loss_name })],
    a_below: () => [unit(l - 1, focus.input + 1)],
    dw: () => [is(partial(indexed('w', l, j, focus.input + 1)), mo('='), value(focus.delta), mo('·'), value(focus.a_below), mo('='), mn(number(focus.dw)))],
    lr: () => [note('o_lr')],
    batch_dw: () => [note('o_mean', { b: u.b })],
    batch_db: () => [note('o_mean', { b: u.b })],
    bias: () => [note('o_b'), unit(l, j)],
    new_w: () => (u.is_plain ? to(u.w, u.dw, u.new_w) : [note('e5_more')]),
    new_bias: () => (u.is_plain ? to(u.bias, u.db, u.new_bias) : [note('e5_more')]),
  };
  return others[what]?.() ?? [];
}
