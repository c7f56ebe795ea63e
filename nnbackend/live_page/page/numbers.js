// Fields for numbers: a decimal comma is read too, and what is no number is refused beside the field.
import { make } from './draw.js';
import { t } from './text.js';

const DECIMAL = /^[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?$/i;
const WHOLE = /^[+-]?\d+$/;

// Return a text as JavaScript and Python write numbers, or null if it is no number.
export function asNumber(text, isWhole = false) {
  const plain = text.trim().replace('−', '-');
  return (isWhole ? WHOLE : DECIMAL).test(plain) ? plain.replace(',', '.') : null;
}

// Return a field as { node, box, show, clear }. change gets the number's text, and may return an error.
// words: texts that are accepted too.  step: what the arrow keys add, from least to most.
export function numberField({ value = '', change, isWhole = false, words = [], step = 0, least = 0, most = Infinity, ...attributes }) {
  const box = make('input', { type: 'text', inputmode: 'decimal', autocomplete: 'off', class: 'number', value, ...attributes });
  const note = make('small', { class: 'field-error', role: 'alert', hidden: true });
  let last = String(value);
  const mark = (text, isWrong) => {
    note.textContent = text;
    note.hidden = !text;
    box.classList.toggle('wrong', isWrong);
    box.setAttribute('aria-invalid', String(isWrong));
  };
  box.addEventListener('change', async () => {
    const text = words.includes(box.value.trim()) ? box.value.trim() : asNumber(box.value, isWhole);
    if (text === null) {
      mark(t(isWhole ? 'not_whole' : 'not_number', { text: box.value.trim().slice(0, 20) }), true);
      return;
    }
    mark('', false);
    mark('', Boolean(await change(text)));
  });
  box.addEventListener('keydown', (event) => {
    const by = { ArrowUp: step, ArrowDown: -step }[event.key];
    const text = by ? asNumber(box.value) : null;
    if (text === null) return;
    event.preventDefault();
    box.value = String(Number(Math.max(least, Math.min(most, Number(text) + by)).toPrecision(12)));
    box.dispatchEvent(new Event('change'));
  });
  const clear = () => mark('', false);
  // Show a number; a refused text stays until the number changes.
  const show = (number) => {
    if (box.classList.contains('wrong') && String(number) === last) return;
    if (box.classList.contains('wrong')) clear();
    last = String(number);
    box.value = last;
  };
  return { node: make('span', { class: 'number-field' }, box, note), box, show, clear };
}
