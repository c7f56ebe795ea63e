// Colours, numbers and small helpers shared by the drawings.

export const CLASS_COLOURS = [
  [224, 130, 20], [47, 109, 179], [42, 145, 110], [140, 86, 165], [196, 67, 104],
  [122, 122, 40], [90, 160, 200], [150, 100, 70], [110, 110, 110], [60, 60, 140],
];

let ink = { paper: [255, 255, 255], text: '#1d2733', faint: '#6a7683', line: '#d5dbe2', isDark: false, depth: 0.62 };

export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const value = (name) => style.getPropertyValue(name).trim();
  ink = {
    paper: value('--plane').split(' ').map(Number), isDark: style.colorScheme.includes('dark'),
    depth: style.colorScheme.includes('dark') ? 0.5 : 0.62,
    text: value('--text'), faint: value('--faint'), line: value('--line'),
  };
}

export function theme() {
  return ink;
}

export function mix(from, to, share) {
  const s = Math.max(0, Math.min(1, share));
  return from.map((c, i) => c + (to[i] - c) * s);
}

// The colour of a row's mark, which stands out from its class's region.
export function markColour(kind) {
  const colour = CLASS_COLOURS[kind % CLASS_COLOURS.length];
  return ink.isDark ? mix(colour, [255, 255, 255], 0.4) : mix(colour, [0, 0, 0], 0.12);
}

export function rgb(colour) {
  return `rgb(${colour.map(Math.round).join(',')})`;
}

// A colour for a signed value: orange below 0, blue above.
export function signed(value, scale) {
  const share = Math.abs(value) / (scale || 1);
  return mix(ink.paper, CLASS_COLOURS[value < 0 ? 0 : 1], Math.min(1, share) * 0.9);
}

export function number(value, digits = 5) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  return text.replaceAll('-', '−');
}

export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e4 || size < 1e-3)) return value.toExponential(1).replaceAll('-', '−');
  return String(Number(value.toPrecision(3))).replaceAll('-', '−');
}

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const SVG = 'http://www.w3.org/2000/svg';

export function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Fit a canvas to its box on a screen of any resolution; return its context in CSS pixels.
export function fit(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2);
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
