// The replay: recorded frames, drawn as on the live page, without a server.
import { CurveView } from './charts.js';
import { readTheme } from './draw.js';
import { decodeFrame } from './frames.js';
import { NetworkView } from './network.js';
import { PlaneView } from './plane.js';
import { getLanguage, setLanguage, t, translate } from './text.js';

const byId = (id) => document.getElementById(id);
const recorded = JSON.parse(byId('recorded').textContent);
const recordedSetup = JSON.parse(recorded.setup);
const packed = Uint8Array.from(atob(recorded.frames), (c) => c.charCodeAt(0));
const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
const bytes = await new Response(unpacked).arrayBuffer();
let begin = 0;
const recordedFrames = recorded.sizes.map((size) => {
  begin += size;
  return decodeFrame(bytes.slice(begin - size, begin));
});
const pause = Math.min(200, Math.max(60, 4000 / recordedFrames.length)); // ms of a frame
const recordedCurve = JSON.parse(recorded.curve);
for (const frame of recordedFrames) {
  const columns = recordedCurve.map((column) => column.slice(0, frame.rows).map((v) => v ?? NaN));
  frame.arrays.curve = { shape: [columns.length, frame.rows], data: Float32Array.from(columns.flat()) };
}
const networkView = new NetworkView(byId('board'));
const planeView = new PlaneView(byId('plane'));
const curveView = new CurveView(byId('curve'), null);
const moment = byId('moment');
let timer = null;

function drawMoment() {
  const frame = recordedFrames[Number(moment.value)];
  if (!frame) return;
  byId('epoch').textContent = frame.epoch;
  byId('step').textContent = frame.step;
  networkView.draw(frame);
  planeView.draw(recordedSetup, frame);
  curveView.draw(recordedSetup, frame);
}

function showTexts() {
  translate();
  byId('run').textContent = t(timer ? 'pause' : 'run');
  byId('language').textContent = getLanguage() === 'en' ? 'es' : 'en';
  networkView.build(recordedSetup);
  drawMoment();
}

function toggle() {
  if (timer) {
    clearInterval(timer);
    timer = null;
  } else {
    if (Number(moment.value) >= recordedFrames.length - 1) moment.value = 0;
    timer = setInterval(() => {
      moment.value = Number(moment.value) + 1;
      drawMoment();
      if (Number(moment.value) >= recordedFrames.length - 1) toggle();
    }, pause);
  }
  byId('run').textContent = t(timer ? 'pause' : 'run');
}

moment.max = recordedFrames.length - 1;
moment.addEventListener('input', drawMoment);
byId('run').addEventListener('click', toggle);
byId('language').addEventListener('click', () => {
  setLanguage(getLanguage() === 'en' ? 'es' : 'en');
  showTexts();
});
new ResizeObserver(showTexts).observe(byId('network'));
readTheme();
// The address may name the language, replay.html#es; else it is that of the page that exported it.
setLanguage(location.hash.slice(1) || recorded.language || navigator.language.slice(0, 2));
moment.value = recordedFrames.length - 1;
showTexts();
