// Formulas as MathML, in the notation of the course.
const MATH = 'http://www.w3.org/1998/Math/MathML';

export function m(tag, ...children) {
  const node = document.createElementNS(MATH, tag);
  for (const child of children) node.append(child);
  return node;
}

export const mi = (text) => m('mi', text);
export const mo = (text) => m('mo', text);
export const row = (...children) => m('mrow', ...children);

// A number of the engine; name says which, for tests and for readers of the page's source.
export function mn(text, name) {
  const node = m('mn', text);
  if (name) node.setAttribute('data-n', name);
  return node;
}

export function indexed(symbol, upper, ...lower) {
  const below = lower.length > 1 ? row(...lower.flatMap((x, i) => (i ? [mo(','), atom(x)] : [atom(x)]))) : atom(lower[0]);
  return m('msubsup', mi(symbol), below, atom(upper));
}

function atom(value) {
  if (value instanceof Element) return value;
  return /^[0-9]+$/.test(String(value)) ? m('mn', String(value)) : mi(String(value));
}

export const minus = (symbol, number) => row(mi(symbol), mo('−'), m('mn', String(number)));
export const plus = (symbol, number) => row(mi(symbol), mo('+'), m('mn', String(number)));

// An operator with its spaces also at the beginning of a formula.
export function infix(text) {
  const node = mo(text);
  node.setAttribute('form', 'infix');
  return node;
}

export function fraction(top, bottom) {
  return m('mfrac', top, bottom);
}

export function partial(by) {
  return fraction(row(mo('∂'), mi('C')), row(mo('∂'), by));
}

export function sum(over) {
  return m('munder', mo('∑'), mi(over));
}

export function parens(...children) {
  return row(mo('('), ...children, mo(')'));
}

export function math(...children) {
  const node = m('math', row(...children));
  node.setAttribute('display', 'block');
  return node;
}

// A line of several formulas: it wraps between them.
export function wrapped(...parts) {
  const line = document.createElement('p');
  line.className = 'formula';
  for (const part of parts) line.append(m('math', part), ' ');
  return line;
}
