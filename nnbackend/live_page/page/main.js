// The page: the connection to the session, the toolbar, and the order of drawing.
import { AlgorithmView } from './algorithm.js';
import { CurveView, drawHistograms } from './charts.js';
import { Controls } from './controls.js';
import { make, number, readTheme, short, theme } from './draw.js';
import { Editor } from './editor.js';
import { inLanguage } from './errors.js';
import { decodeFrame } from './frames.js';
import { NetworkView, weightText } from './network.js';
import { numberField } from './numbers.js';
import { origin } from './origins.js';
import { PlaneView } from './plane.js';
import { getLanguage, setLanguage, t, translate } from './text.js';

const $ = (id) => document.getElementById(id);
const SPEEDS = [1, 3, 10, 30, 100, 300, 1000, 3000, 10000, null];
const LESSON_PAGES = { 2: 'activations', 4: 'update', 6: 'rates', 7: 'overfitting', 8: 'deep' }; // of docs/course
const state = { setup: null, frame: null, pending: new Map(), ticket: 0, wanted: false, hover: null };
let socket = null;

// ---- the connection -----------------------------------------------------------------------------

function connect() {
  const url = new URL('socket', location.href);
  url.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  socket = new WebSocket(url);
  socket.binaryType = 'arraybuffer';
  socket.addEventListener('message', (event) => {
    if (typeof event.data === 'string') receive(JSON.parse(event.data));
    else takeFrame(event.data);
  });
  socket.addEventListener('close', () => {
    document.body.classList.add('lost');
    status(t(state.setup?.watched ? 'ended' : 'lost'));
  });
}

// Send a command; the promise has the text of its error, or "".
export function send(command) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return Promise.resolve(t('lost'));
  state.ticket += 1;
  const id = state.ticket;
  socket.send(JSON.stringify({ ...command, id }));
  return new Promise((resolve) => {
    state.pending.set(id, resolve);
  });
}

async function ask(command) {
  const error = await send(command);
  showError(error);
  return error;
}

function receive(message) {
  if (message.type === 'reply') {
    state.pending.get(message.id)?.(message.error);
    state.pending.delete(message.id);
    return;
  }
  state.setup = message;
  state.frame = null; // until one of the new network arrives
  state.hover = null; // its line or unit may be gone
  algorithm.expected = null;
  controls.build(message);
  network.build(message);
  editor.close();
  document.body.classList.toggle('watched', message.watched);
  $('legend').textContent = legend(message);
}

function legend(setup) {
  return t(setup.watched ? 'watched' : setup.fixed.length ? 'fixed' : 'legend');
}

function takeFrame(buffer) {
  state.time = performance.now();
  const frame = decodeFrame(buffer);
  const isOld = !state.setup || frame.setup !== state.setup.number;
  if (!isOld) state.frame = frame;
  requestDraw(() => socket.send('shown'));
}

const after = [];

function requestDraw(then) {
  if (then) after.push(then);
  if (state.wanted) return;
  state.wanted = true;
  const go = () => {
    if (!state.wanted) return;
    state.wanted = false;
    draw();
    for (const call of after.splice(0)) call();
  };
  requestAnimationFrame(go);
  // A page in the background draws seldom, but must not stay behind for ever.
  setTimeout(go, 500);
}

// ---- drawing ------------------------------------------------------------------------------------

function draw() {
  const { setup, frame } = state;
  if (!setup || !frame) return;
  status(inLanguage(frame.error) || (frame.finished && !frame.running ? t('finished') : ''));
  $('epoch').textContent = frame.epoch;
  $('step').textContent = frame.step;
  if (frame.running && frame.speed === null && frame.rate) $('speed-shown').textContent = `${whole(frame.rate)} ${t('per_second')}`;
  const label = frame.running ? 'pause' : 'run';
  $('run').lastChild.textContent = t(label);
  $('run').firstChild.textContent = frame.running ? '‖' : '▶';
  $('run').setAttribute('aria-pressed', String(frame.running));
  $('do-back').disabled = !frame.can_back;
  network.draw(frame);
  plane.selected = frame.algorithm?.row ?? null;
  plane.unit = state.hover?.unit ? network.indexOf(state.hover.unit) : null;
  $('result-title').textContent = plane.unit === null ? t('result')
    : t('picture_of_unit', { j: state.hover.unit.unit + 1, l: state.hover.unit.layer });
  plane.draw(setup, frame);
  curve.draw(setup, frame);
  const slow = `${frame.slow} ${getLanguage()} ${theme().isDark} ${setup.number}`;
  if (slow !== state.slow) {
    state.slow = slow;
    drawFigures(setup, frame);
    drawHistograms($('histograms'), frame);
    drawHints(frame);
  }
  algorithm.draw(setup, frame);
  network.mark(algorithm.layers());
  if (frame.algorithm) {
    network.focus(frame.algorithm.focus);
    if (document.activeElement !== rowField.box) rowField.show(frame.algorithm.row);
    $('follow').checked = frame.algorithm.follows;
  }
  editor.draw(frame);
  showTip();
}

function whole(rate) {
  return Math.round(rate).toLocaleString(getLanguage());
}

function drawFigures(setup, frame) {
  const f = frame.figures || {};
  const score = t(setup.score === 'r2' ? 'r2' : 'accuracy');
  $('show-score').textContent = score;
  const rows = [['train', f.train_loss, f.train_score], ['valid', f.valid_loss, f.valid_score]];
  const body = $('figures').firstElementChild;
  const cells = ['', t('cost'), score];
  body.replaceChildren(
    make('tr', {}, ...cells.map((c) => make('th', { text: c }))),
    ...rows.filter(([, loss]) => loss !== undefined).map(([name, loss, value]) => make('tr', {},
      make('th', { scope: 'row', text: t(name) }),
      make('td', { text: loss === null ? '∞' : number(loss, 4), 'data-figure': `${name}_loss` }),
      make('td', { text: value === null ? '–' : value.toFixed(3), 'data-figure': `${name}_score` }))),
  );
}

function drawHints(frame) {
  const texts = (frame.hints || []).map((hint) => `${t(`h_${hint.code}`, {
    ...hint, share: hint.share === undefined ? '' : Math.round(100 * hint.share),
    ratio: hint.ratio === undefined ? '' : short(hint.ratio),
  })} ${t('see_lesson', { n: hint.lesson, title: t(`lesson_${hint.lesson}`), page: LESSON_PAGES[hint.lesson] })}`);
  const key = texts.join('\n') + getLanguage();
  if ($('hints').dataset.key === key) return;
  $('hints').dataset.key = key;
  $('hints').replaceChildren(...(texts.length ? texts.map((text) => make('li', { text }))
    : [make('li', { class: 'none', text: t('no_hints') })]));
}

// The first steps of a network may take seconds, while the engine compiles.
setInterval(() => {
  const isBusy = state.frame?.running || state.pending.size > 0;
  const isSilent = performance.now() - (state.time || 0) > 1200;
  if (isBusy && isSilent && socket?.readyState === WebSocket.OPEN) status(t('preparing'));
}, 400);

function status(text) {
  if ($('status').textContent !== text) $('status').textContent = text;
}

function showError(text) {
  $('error').hidden = !text;
  $('error').textContent = inLanguage(text);
}

// ---- the tooltip --------------------------------------------------------------------------------

function hover(what) {
  state.hover = what;
  network.over = what?.line ?? null;
  requestDraw();
}

function showTip() {
  const tip = $('tip');
  const { hover: what, frame, setup } = state;
  tip.hidden = !what || !frame;
  if (tip.hidden) return;
  tip.classList.toggle('wide', Boolean(what.number));
  if (what.number) {
    // A new frame has new nodes: the number of the same name.
    if (!what.node.isConnected) what.node = document.querySelector(`#algorithm-body [data-n="${what.number}"]`);
    const found = what.node && frame.algorithm ? origin(frame.algorithm, what.number) : [];
    tip.replaceChildren(...found);
    tip.hidden = !found.length;
    if (tip.hidden) return;
  } else if (what.weight) {
    const pieces = setup.layers[what.weight.layer - 1].pieces;
    tip.textContent = Array.from({ length: pieces }, (_, p) => weightText(what.weight, network.weightAt(frame, what.weight, p), p, pieces)).join('\n');
      } else {
    tip.textContent = unitText(what.unit, frame, setup);
  }
  const box = what.node.getBoundingClientRect();
  const x = Math.min(box.left + box.width / 2 + 12, window.innerWidth - tip.offsetWidth - 8);
  const y = Math.min(box.top + box.height / 2 + 26, window.innerHeight - tip.offsetHeight - 8);
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}

function unitText(place, frame, setup) {
  const lines = [t('unit_of', { j: place.unit + 1, l: place.layer })];
  const a = frame.algorithm;
  if (place.layer === 1) {
    lines[0] += `: ${setup.data.names[place.unit]}`;
    if (a) lines.push(`a = ${number(a.x[place.j])}`);
  } else if (a) {
    const layer = a.layers[place.layer - 2];
    const i = layer.units.indexOf(place.unit);
    lines.push(`z = ${number(layer.z[i])}`, `a = ${number(layer.a[i])}`, `δ = ${number(layer.delta[i])}`);
    lines.push(`b = ${number(network.biasAt(frame, place))}`);
  }
  return lines.join('\n');
}

// ---- set up -------------------------------------------------------------------------------------

readTheme();
const controls = new Controls(ask, showError);
const network = new NetworkView($('board'), {
  onHover: hover,
  onWeight: (place, event) => {
    algorithm.suit(place.layer);
    send({ do: 'focus', layer: place.layer, unit: place.unit, input: place.input });
    if (!state.setup.watched) editor.openWeight(place, event);
  },
  onUnit: (place, event) => {
    if (place.layer === 1) return;
    algorithm.suit(place.layer);
    send({ do: 'focus', layer: place.layer, unit: place.unit, input: 0 });
    if (!state.setup.watched) editor.openUnit(place, event);
  },
  headOf: (layer, l) => controls.headOf(layer, l),
});
const editor = new Editor($('editor'), ask, network, state);
const plane = new PlaneView($('plane'));
const curve = new CurveView($('curve'), (step) => {
  if (!state.setup?.watched) ask({ do: 'goto', step: Math.round(step) });
});
const rowField = numberField({ id: 'row', isWhole: true, step: 1, change: (text) => ask({ do: 'row', row: Number(text) }) });
$('row-choice').append(rowField.node);
const algorithm = new AlgorithmView($('algorithm'), send, hover);

$('run').addEventListener('click', () => ask({ do: state.frame?.running ? 'pause' : 'run' }));
for (const name of ['step', 'epoch', 'substep', 'back', 'reset']) {
  $(`do-${name}`).addEventListener('click', () => ask({ do: name }));
}

function setSpeed() {
  const value = SPEEDS[$('speed').value];
  $('speed-shown').textContent = value === null ? t('unlimited') : `${value} ${t('per_second')}`;
  $('speed').setAttribute('aria-valuetext', $('speed-shown').textContent);
  return value;
}
$('speed').addEventListener('input', () => ask({ do: 'speed', value: setSpeed() }));

$('plane').addEventListener('click', (event) => {
  const point = state.setup && plane.nearest(state.setup, event.offsetX, event.offsetY);
  if (point) ask({ do: 'row', row: point.row });
});
$('follow').addEventListener('change', () => {
  ask({ do: 'row', row: $('follow').checked ? null : state.frame?.algorithm?.row ?? 0 });
});
for (const kind of ['loss', 'score']) {
  $(`show-${kind}`).addEventListener('click', () => {
    curve.kind = kind;
    $('show-loss').setAttribute('aria-pressed', String(kind === 'loss'));
    $('show-score').setAttribute('aria-pressed', String(kind === 'score'));
    requestDraw();
  });
}

const KEYS = { ' ': 'run', s: 'do-step', e: 'do-epoch', n: 'do-substep', b: 'do-back', r: 'do-reset' };
document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') editor.close();
  const tag = event.target.tagName;
  if (tag === 'INPUT' || tag === 'SELECT' || tag === 'TEXTAREA') return;
  if (event.key === ' ' && (tag === 'BUTTON' || tag === 'SUMMARY' || tag === 'A')) return;
  const id = state.setup?.watched ? null : KEYS[event.key];
  if (id && !$(id).disabled) {
    event.preventDefault();
    $(id).click();
  }
});

function applyLanguage(name) {
  setLanguage(name);
  translate();
  $('replay').href = `export/replay.html?language=${getLanguage()}`;
  $('language').textContent = getLanguage() === 'en' ? 'es' : 'en';
  setSpeed();
  if (state.setup) {
    controls.build(state.setup);
    network.build(state.setup);
    $('legend').textContent = legend(state.setup);
    $('histograms').replaceChildren();
    requestDraw();
  }
}

function stored(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`nnbackend-${name}`);
    localStorage.setItem(`nnbackend-${name}`, value);
  } catch {
    // Storage may be forbidden; the choice then lasts as long as the page.
  }
  return null;
}

$('language').addEventListener('click', () => {
  const name = getLanguage() === 'en' ? 'es' : 'en';
  stored('language', name);
  applyLanguage(name);
});
$('theme').addEventListener('click', () => {
  const isDark = getComputedStyle(document.documentElement).colorScheme.includes('dark');
  const name = isDark ? 'light' : 'dark';
  stored('theme', name);
  document.documentElement.dataset.theme = name;
  readTheme();
  requestDraw();
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  readTheme();
  requestDraw();
});

let width = 0;
new ResizeObserver(() => {
  if ($('board').clientWidth !== width) {
    width = $('board').clientWidth;
    if (state.setup) network.build(state.setup);
  }
  requestDraw();
}).observe($('network'));

$('png').addEventListener('click', () => {
  const { clientWidth: w, clientHeight: h } = network.board;
  const [pw, ph] = [$('plane').clientWidth, $('plane').clientHeight];
  const picture = make('canvas', {});
  picture.width = 2 * (w + pw + 48);
  picture.height = 2 * (Math.max(h, ph + 150) + 64);
  const context = picture.getContext('2d');
  context.scale(2, 2);
  const style = getComputedStyle(document.documentElement);
  context.fillStyle = style.getPropertyValue('--panel');
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = theme().text;
  context.font = '14px system-ui, sans-serif';
  const f = state.frame;
  context.fillText(`${t('epoch')} ${f.epoch}  ${t('step')} ${f.step}  ${t('cost')} ${number(f.figures?.train_loss, 4)}`, 16, 24);
  context.save();
  context.translate(16, 40);
  network.drawInto(context);
  context.restore();
  context.drawImage($('plane'), w + 32, 40, pw, ph);
  context.drawImage($('curve'), w + 32, 48 + ph, $('curve').clientWidth, $('curve').clientHeight);
  picture.toBlob((blob) => {
    const link = make('a', { href: URL.createObjectURL(blob), download: 'live.png' });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
});

document.addEventListener('click', (event) => {
  if (!$('export').contains(event.target)) $('export').open = false;
});

if (stored('theme')) document.documentElement.dataset.theme = stored('theme');
readTheme();
applyLanguage(stored('language') || (navigator.language.startsWith('es') ? 'es' : 'en'));
status(t('preparing'));
connect();
