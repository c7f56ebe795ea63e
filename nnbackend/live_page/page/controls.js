// The controls of data, network and training, made from what the session offers.
import { make } from './draw.js';
import { numberField } from './numbers.js';
import { t } from './text.js';

const TOYS = ['spirals', 'circles', 'xor', 'blobs', 'wave'];
const FIRST = ['optimizer', 'learning_rate', 'momentum', 'batch_size', 'schedule', 'epochs', 'loss', 'l1', 'l2', 'initializer'];
const MORE = ['weight_decay', 'validation', 'scale', 'device', 'dtype', 'seed'];
const WHOLE = ['batch_size', 'epochs', 'seed'];
const WORDS = { batch_size: ['full'], learning_rate: [''], momentum: [''] }; // no text: chosen automatically
const HIDDEN_DEFAULT = 'tanh';
const $ = (id) => document.getElementById(id);

export class Controls {
  constructor(ask, showError) {
    this.ask = ask;
    this.showError = showError;
    this.setup = null;
    $('csv-file').addEventListener('change', (event) => this.upload('data', event.target));
    $('config-file').addEventListener('change', (event) => this.upload('config', event.target));
    $('add-layer').addEventListener('click', () => this.changeLayers((layers) => {
      const last = layers[layers.length - 1];
      layers.push(last ? { ...last } : { units: 4, activation: HIDDEN_DEFAULT, dropout: '0' });
    }));
    $('remove-layer').addEventListener('click', () => this.changeLayers((layers) => layers.pop()));
  }

  set(options) {
    return this.ask({ do: 'set', options });
  }

  build(setup) {
    this.setup = setup;
    const isFixed = setup.fixed.length > 0;
    this.buildData(setup, isFixed);
    const names = (list) => list.filter((n) => !setup.fixed.includes(n)
      && (n !== 'momentum' || setup.options.optimizer.startsWith('sgd'))
      && (n !== 'learning_rate' || !setup.options.optimizer.startsWith('lbfgs')));
    this.fill($('options'), names(FIRST));
    this.fill($('more-options'), names(MORE));
    $('add-layer').parentElement.hidden = isFixed;
    const count = this.layers().length;
    $('add-layer').disabled = count >= setup.limits.layers;
    $('remove-layer').disabled = count === 0;
  }

  // ---- data -------------------------------------------------------------------------------------

  buildData(setup, isFixed) {
    const { kind, about } = setup.data;
    const current = kind === 'toy' ? about.set : '';
    $('sets').hidden = isFixed;
    $('csv-file').parentElement.hidden = isFixed;
    $('csv-file').parentElement.nextElementSibling.hidden = isFixed;
    $('toy').hidden = isFixed && !setup.watched;
    $('sets').replaceChildren(...TOYS.map((name) => make('button', {
      type: 'button', role: 'radio', 'aria-checked': String(name === current), text: t(name), 'data-set': name,
      onclick: () => this.ask({ do: 'data', set: name, rows: about.rows ?? 400, noise: setup.data.noise[name], seed: about.seed ?? 0 }),
    })));
    if (kind === 'toy') {
      const change = (key, value) => this.ask({ do: 'data', ...about, [key]: value });
      this.replace($('toy'), 'toy', [
        this.slider('noise', about.noise, 0, 0.5, 0.01, (v) => change('noise', v), t('tip_noise')),
        this.slider('rows', about.rows, 20, 1000, 20, (v) => change('rows', v), t('tip_rows')),
        this.number('seed', about.seed, (v) => change('seed', v), t('tip_seed_data'), 'data-seed'),
      ]);
    } else {
      $('toy').replaceChildren(make('p', { text: `${setup.data.name}: ${setup.data.rows} ${t('rows').toLowerCase()}` }));
    }
    this.buildColumns(setup, isFixed);
  }

  buildColumns(setup, isFixed) {
    const { data, plane } = setup;
    const root = $('plane-columns');
    root.hidden = data.names.length < 3 && !data.columns.length;
    if (root.hidden) return;
    const select = (name, axis) => {
      const node = make('select', { id: `axis-${axis}` }, ...data.names.map((n, i) => make('option', { value: i, text: n })));
      node.value = plane.features[axis];
      node.addEventListener('change', () => this.ask({ do: 'plane', features: [0, 1].map((k) => Number($(`axis-${k}`).value)) }));
      return make('label', {}, make('span', { text: t(name) }), node);
    };
    const parts = [];
    if (!data.columns.length) {
      parts.push(select('across', 0), select('up', 1), make('p', { class: 'note', text: t('rest_median') }));
      if (!isFixed) {
        parts.push(make('button', { type: 'button', id: 'two-columns', text: t('two_columns'),
          onclick: () => this.ask({ do: 'columns', columns: [0, 1].map((k) => Number($(`axis-${k}`).value)) }) }));
      }
    } else {
      parts.push(make('p', { text: `${t('columns')}: ${data.names.join(', ')}` }),
        make('button', { type: 'button', id: 'all-columns', text: t('all_columns'), onclick: () => this.ask({ do: 'columns', columns: [] }) }));
    }
    root.replaceChildren(...parts);
  }

  async upload(kind, input) {
    const file = input.files[0];
    if (!file) return;
    try {
      const answer = await fetch(`send/${kind}?name=${encodeURIComponent(file.name)}`, { method: 'POST', body: file });
      const result = await answer.json();
      this.showError(result.error || '');
    } catch {
      this.showError(t('lost'));
    }
    input.value = '';
  }

  // ---- options ----------------------------------------------------------------------------------

  fill(root, names) {
    this.replace(root, names.join(), names.map((name) => this.option(name)));
  }

  // Replace fields, and keep the keyboard's focus where it was.
  replace(root, key, nodes) {
    const focused = root.contains(document.activeElement) ? document.activeElement.id : '';
    root.replaceChildren(...nodes);
    if (focused) $(focused)?.focus();
  }

  option(name) {
    const { options, choices } = this.setup;
    const value = options[name];
    const label = name === 'seed' ? t('seed') : t(name);
    const tip = t(`tip_${name}`);
    if (choices[name]) return this.choice(name, label, value, choices[name], tip);
    if (name === 'validation') return this.slider(name, Number(value), 0, 0.8, 0.05, (v) => this.set({ validation: String(v) }), tip);
    const automatic = { learning_rate: String(this.setup.learning_rate), momentum: '0' };
    return this.text(name, label, value === '' ? automatic[name] ?? '' : value, tip);
  }

  choice(name, label, value, names, tip) {
    const node = make('select', { id: `o-${name}`, title: tip });
    let known = names.includes(value) || value === '' ? names : [...names, value];
    if (name === 'loss') {
      node.append(make('option', { value: '', text: this.setup.loss }));
      if (value === '') known = known.filter((n) => n !== this.setup.loss);
    }
    node.append(...known.map((n) => make('option', { value: n, text: n })));
    node.value = value;
    node.addEventListener('change', () => this.set({ [name]: node.value }));
    return make('label', { title: tip }, make('span', { text: label }), node);
  }

  text(name, label, value, tip) {
    const { node } = numberField({
      id: `o-${name}`, value, title: tip, size: 6, isWhole: WHOLE.includes(name), words: WORDS[name],
      step: name === 'epochs' || name === 'seed' ? 1 : 0, change: (text) => this.set({ [name]: text }),
      ...(name === 'batch_size' ? { list: 'batch-sizes', inputmode: 'text' } : {}),
    });
    const field = make('label', { title: tip }, make('span', { text: label }), node);
    if (name === 'batch_size' && !$('batch-sizes')) {
      document.body.append(make('datalist', { id: 'batch-sizes' }, ...['1', '10', '32', '100', 'full'].map((v) => make('option', { value: v }))));
    }
    return field;
  }

  number(name, value, change, tip, id) {
    const { node } = numberField({ id: id || `f-${name}`, value, title: tip, isWhole: true, step: 1, change: (text) => change(Number(text)) });
    return make('label', { title: tip }, make('span', { text: t(name) }), node);
  }

  slider(name, value, min, max, step, change, tip) {
    const node = make('input', { id: `f-${name}`, type: 'range', min, max, step, title: tip });
    node.value = value;
    const shown = make('output', { text: String(value) });
    node.addEventListener('input', () => {
      shown.textContent = node.value;
    });
    node.addEventListener('change', () => change(node.valueAsNumber));
    return make('label', { title: tip }, make('span', { text: t(name) }), make('span', { class: 'slider' }, node, shown));
  }

  // ---- layers -----------------------------------------------------------------------------------

  layers() {
    const { options } = this.setup;
    const split = (text) => (text === '' || text === 'none' ? [] : text.split(','));
    const [units, activations, rates] = [split(options.hidden), split(options.activation), split(options.dropout)];
    return units.map((u, i) => ({
      units: Number(u), activation: activations[Math.min(i, activations.length - 1)] ?? HIDDEN_DEFAULT,
      dropout: rates[Math.min(i, rates.length - 1)] ?? '0',
    }));
  }

  changeLayers(change) {
    const layers = this.layers();
    change(layers);
    const list = (name, none) => (layers.length ? layers.map((l) => l[name]).join(',') : none);
    return this.set({ hidden: list('units', 'none'), activation: list('activation', HIDDEN_DEFAULT), dropout: list('dropout', '0') });
  }

  // The controls above a layer.
  headOf(layer, l) {
    const { setup } = this;
    const isLast = l === setup.layers.length - 1;
    if (l === 0) return [];
    if (setup.fixed.length) return [make('small', { text: layer.activation })];
    if (isLast) {
      const node = make('select', { 'aria-label': t('activation_of', { l: l + 1 }), title: t('activation_of', { l: l + 1 }), id: 'output-activation' },
        make('option', { value: '', text: layer.activation }), ...setup.choices.output_activation.filter((n) => n !== layer.activation || setup.options.output_activation).map((n) => make('option', { value: n, text: n })));
      node.value = setup.options.output_activation;
      node.addEventListener('change', () => this.set({ output_activation: node.value }));
      return [node];
    }
    const at = l - 1;
    const own = this.layers()[at];
    const button = (text, label, by) => make('button', {
      type: 'button', text, 'aria-label': t(label, { l: l + 1 }), title: t(label, { l: l + 1 }),
      disabled: own.units + by < 1 || own.units + by > setup.limits.units,
      onclick: () => this.changeLayers((layers) => {
        layers[at].units += by;
      }),
    });
    const known = setup.choices.activation.flatMap((n) => (n === 'maxout' ? ['maxout:2', 'maxout:3'] : [n]));
    if (!known.includes(own.activation)) known.push(own.activation);
    const select = make('select', { 'aria-label': t('activation_of', { l: l + 1 }), title: t('activation_of', { l: l + 1 }), class: 'activation' },
      ...known.map((n) => make('option', { value: n, text: n })));
    select.value = own.activation;
    select.addEventListener('change', () => this.changeLayers((layers) => {
      layers[at].activation = select.value;
    }));
    const rate = numberField({
      value: own.dropout, step: 0.1, most: 0.9, 'aria-label': t('dropout_of', { l: l + 1 }),
      change: (text) => this.set({ dropout: this.layers().map((layer2, i) => (i === at ? text : layer2.dropout)).join(',') }),
    });
    return [
      make('span', { class: 'count' }, button('−', 'remove_unit', -1), make('span', { text: String(own.units) }), button('+', 'add_unit', 1)),
      select,
      make('label', { class: 'drop', title: t('dropout_of', { l: l + 1 }) }, make('span', { text: t('dropout') }), rate.node),
    ];
  }
}
