// Every text of the page, in English and Spanish. {name} is replaced.

const TEXTS = {
  en: {
    title: 'nnbackend live', run: 'Run', pause: 'Pause', step: 'Step', epoch: 'Epoch', epochs: 'Epochs',
    next: 'Next of 5', back: 'Back', reset: 'Reset', speed: 'Speed', steps: 'steps',
    per_second: 'steps/s', unlimited: 'as fast as possible', language: 'Language', theme: 'Light or dark',
    export: 'Export', import_config: 'Open config.toml…', connecting: 'Connecting…',
    preparing: 'Preparing the engine. The first time this takes some seconds.',
    lost: 'The connection is lost. Start nnbackend live again and open the address that it prints.',
    ended: 'The connection has ended. Watch the run folder with nnbackend live RUN.',
    finished: 'The last epoch is reached. Raise “epochs” to continue.',
    png: 'Picture (PNG)', csv: 'Data (CSV)', config: 'Settings (config.toml)', script: 'Python script', replay: 'Replay (HTML)',
    tip_run: 'Train until you pause (space)', tip_step: 'One update of the weights, with one mini-batch (s)',
    tip_epoch: 'To the end of the epoch: one pass through the training rows (e)',
    tip_next: 'The next of the five steps of backpropagation (n)', tip_back: 'Undo the last step or edit (b)',
    tip_reset: 'The initial weights again (r)',
    data: 'Data', set: 'Set', noise: 'Noise', rows: 'Rows', seed: 'Seed', spirals: 'spirals', circles: 'circles',
    xor: 'exclusive or', blobs: 'three clouds', wave: 'a wave (regression)', own: 'own file', open_csv: 'Open a CSV…',
    csv_help: 'The last column is the target.', columns: 'Columns', all_columns: 'train on all columns',
    two_columns: 'train on these two', across: 'Across', up: 'Up', rest_median: 'The other columns are at their median.',
    validation: 'Held out', scale: 'Scaling', training: 'Training', optimizer: 'Optimizer', learning_rate: 'Rate η',
    momentum: 'Momentum μ', schedule: 'Schedule', batch_size: 'Batch b', loss: 'Cost C', l1: 'L1', l2: 'L2 λ',
    weight_decay: 'Weight decay', initializer: 'Initial weights', device: 'Device', dtype: 'Numbers', automatic: 'automatic',
    more: 'More', full: 'full',
    tip_set: 'The rows that the network learns from', tip_noise: 'Standard deviation of the noise',
    tip_rows: 'Number of rows', tip_seed_data: 'Seed of the rows', tip_validation: 'Share of the rows that is held out: hollow marks',
    tip_optimizer: 'The rule that turns ∂C/∂w into new weights; the weights stay', tip_learning_rate: 'η: the length of an update; the weights stay',
    tip_momentum: 'μ: the share of the last update that is kept (sgd)', tip_schedule: 'How η changes during the run',
    tip_batch_size: 'b: rows of an update; 1 is stochastic, full is batch gradient descent', tip_loss: 'C: the cost that is minimised',
    tip_l1: 'Penalty λ·Σ|w| in the cost', tip_l2: 'Penalty λ/2·Σw² in the cost', tip_weight_decay: 'Each step also multiplies w by 1 − η·decay',
    tip_initializer: 'Distribution of the first w', tip_device: 'The library that computes', tip_dtype: 'Digits of the numbers',
    tip_seed: 'Seed of the weights, the batches and dropout', tip_epochs: 'The run pauses after so many epochs', tip_scale: 'Scaling of the columns before the first layer',
    network: 'Network', layer: 'Layer', input: 'input', output: 'output', hidden: 'hidden', units: 'units',
    add_layer: 'Add a layer', remove_layer: 'Remove a layer', add_unit: 'One unit more in layer {l}', remove_unit: 'One unit less in layer {l}',
    activation: 'φ', activation_of: 'Activation φ of layer {l}', dropout: 'drop', dropout_of: 'Dropout of layer {l}: share of the units set to zero in a step',
    more_units: '+ {n} more', fixed: 'The layers of a network from Python stay as they are.',
    watched: 'This page watches a run; hover over lines and units to see their numbers.',
    legend: 'Lines: weights, blue above 0, orange below 0, the thicker the larger. Click a line or a unit to edit.',
    unit_of: 'Unit {j} of layer {l}', weight_of: 'Weight from unit {k} of layer {k0} to unit {j} of layer {l}', bias: 'bias', piece: 'piece', close: 'Close',
    result: 'Result', train: 'training', valid: 'held out', cost: 'cost', accuracy: 'accuracy', r2: 'R²', curves: 'Curves',
    no_curve: 'The curve begins after two epochs.', tip_curve: 'Click to go back to that epoch', distributions: 'Distributions',
    hints: 'Hints', no_hints: 'Nothing unusual.', click_row: 'Click a mark to explain its row.', picture_of_unit: 'Output of unit {j} of layer {l}',
    plane_label: 'Answer of the network over the plane, with the rows', curve_label: 'Curves of the costs over the epochs',
    algorithm: 'Backpropagation, step by step', row: 'Row', follow: 'the next row of training', follows: 'follows training',
    s1: 'Input', s2: 'Feed forward', s3: 'Local gradient of the output', s4: 'Back­propagate', s5: 'Derivatives and update',
    e1: 'The activation of the input layer is the row.', e2: 'Each unit sums its weighted inputs and its bias, and applies φ.',
    e3: 'How fast the cost C changes with z of an output unit.', e3_fused: '{a} with {c}: the product of both factors is simply a − y.',
    e4: 'A hidden unit collects the δ of the layer above, through its weights.', e5: 'Each derivative is δ times the activation below it.',
    e5_wait: 'Press “Next of 5” through step 5 to see the update of the mini-batch.',
    e5_update: 'This update: the mean over the {b} rows of the mini-batch, by {rule}, η = {lr}.',
    looking_at: 'In focus: unit {j} of layer {l}', no_hidden: 'There is no hidden layer.', maxout_note: 'Maxout: the largest of {n} pieces; piece {p} wins here.',
    more_terms: '+ {n} smaller terms', this_row: 'this row', cost_is: 'Cost of this row', softmax_note: 'Softmax: each a also depends on the other z of its layer.',
    h_saturated: 'Layer {layer}: {share} % of the slopes φ′(z) are below 0.01, so its units are saturated and learn slowly. Try smaller initial weights, scaled data, or ReLU.',
    h_dead: 'Layer {layer}: {count} of {of} units answer 0 to every row, so they do not learn. Try a smaller η, or leaky ReLU or ELU.',
    h_step: 'Layer {layer}: the slope of the step function is 0, so the weights up to it do not learn. Choose another φ.',
    h_vanishing: 'δ shrinks to {ratio} of its size on the way back, so the first layers hardly learn. Try ReLU, fewer layers, or larger initial weights.',
    h_exploding: 'δ grows {ratio} times on the way back. Try smaller initial weights or a smaller η.',
    h_symmetric: 'All units of layer {layer} have the same weights, so they stay the same. Draw the initial weights at random.',
    h_rising: 'The cost rises: η may be too large. Try a third of it.',
    h_overfit: 'The cost of the held-out rows has risen since epoch {epoch} while that of training falls: over-fitting. Try L2, dropout, fewer units, or stop there.',
    h_plateau: 'The cost hardly falls. Try a larger η, other initial weights, or more units.',
    h_majority: 'Every row gets the same class. Train longer, try a larger η, or look at the scaling.',
  },
  es: {
    title: 'nnbackend live', run: 'Entrenar', pause: 'Pausa', step: 'Paso', epoch: 'Época', epochs: 'Épocas',
    next: 'Siguiente de 5', back: 'Atrás', reset: 'Inicio', speed: 'Velocidad', steps: 'pasos',
    per_second: 'pasos/s', unlimited: 'lo más rápido posible', language: 'Idioma', theme: 'Claro u oscuro',
    export: 'Exportar', import_config: 'Abrir config.toml…', connecting: 'Conectando…',
    preparing: 'Preparando el motor. La primera vez tarda unos segundos.',
    lost: 'Se perdió la conexión. Inicie de nuevo nnbackend live y abra la dirección que imprime.',
    ended: 'La conexión terminó. Observe la carpeta del entrenamiento con nnbackend live RUN.',
    finished: 'Se alcanzó la última época. Aumente «épocas» para continuar.',
    png: 'Imagen (PNG)', csv: 'Datos (CSV)', config: 'Ajustes (config.toml)', script: 'Programa en Python', replay: 'Repetición (HTML)',
    tip_run: 'Entrenar hasta la pausa (espacio)', tip_step: 'Una actualización de los pesos, con un mini-batch (s)',
    tip_epoch: 'Hasta el final de la época: una pasada por los datos de entrenamiento (e)',
    tip_next: 'El siguiente de los cinco pasos de backpropagation (n)', tip_back: 'Deshacer el último paso o cambio (b)',
    tip_reset: 'Otra vez los pesos iniciales (r)',
    data: 'Datos', set: 'Conjunto', noise: 'Ruido', rows: 'Filas', seed: 'Semilla', spirals: 'espirales', circles: 'círculos',
    xor: 'o exclusivo', blobs: 'tres nubes', wave: 'una onda (regresión)', own: 'archivo propio', open_csv: 'Abrir un CSV…',
    csv_help: 'La última columna es la salida deseada.', columns: 'Columnas', all_columns: 'entrenar con todas',
    two_columns: 'entrenar con estas dos', across: 'Horizontal', up: 'Vertical', rest_median: 'Las otras columnas están en su mediana.',
    validation: 'Reservado', scale: 'Escala', training: 'Entrenamiento', optimizer: 'Optimizador', learning_rate: 'Tasa η',
    momentum: 'Momentum μ', schedule: 'Plan de η', batch_size: 'Batch b', loss: 'Costo C', l1: 'L1', l2: 'L2 λ',
    weight_decay: 'Weight decay', initializer: 'Pesos iniciales', device: 'Dispositivo', dtype: 'Números', automatic: 'automático',
    more: 'Más', full: 'todas',
    tip_set: 'Las filas de las que aprende la red', tip_noise: 'Desviación estándar del ruido',
    tip_rows: 'Número de filas', tip_seed_data: 'Semilla de las filas', tip_validation: 'Parte de las filas que se reserva: marcas huecas',
    tip_optimizer: 'La regla que convierte ∂C/∂w en pesos nuevos; los pesos se conservan', tip_learning_rate: 'η: el tamaño de una actualización; los pesos se conservan',
    tip_momentum: 'μ: la parte que se conserva de la última actualización (sgd)', tip_schedule: 'Cómo cambia η durante el entrenamiento',
    tip_batch_size: 'b: filas de una actualización; 1 es estocástico, full es batch', tip_loss: 'C: el costo que se minimiza',
    tip_l1: 'Penalización λ·Σ|w| en el costo', tip_l2: 'Penalización λ/2·Σw² en el costo', tip_weight_decay: 'Cada paso multiplica además w por 1 − η·decay',
    tip_initializer: 'Distribución de los primeros w', tip_device: 'La biblioteca que calcula', tip_dtype: 'Cifras de los números',
    tip_seed: 'Semilla de los pesos, los batches y el dropout', tip_epochs: 'El entrenamiento se detiene tras estas épocas', tip_scale: 'Escala de las columnas antes de la primera capa',
    network: 'Red', layer: 'Capa', input: 'entrada', output: 'salida', hidden: 'oculta', units: 'unidades',
    add_layer: 'Agregar una capa', remove_layer: 'Quitar una capa', add_unit: 'Una unidad más en la capa {l}', remove_unit: 'Una unidad menos en la capa {l}',
    activation: 'φ', activation_of: 'Función de activación φ de la capa {l}', dropout: 'drop', dropout_of: 'Dropout de la capa {l}: parte de las unidades puestas a cero en un paso',
    more_units: '+ {n} más', fixed: 'Las capas de una red creada en Python no cambian.',
    watched: 'Esta página observa un entrenamiento; pase sobre líneas y unidades para ver sus números.',
    legend: 'Líneas: pesos, azul mayor que 0, naranja menor que 0, más gruesas cuanto mayores. Pulse una línea o una unidad para cambiarla.',
    unit_of: 'Unidad {j} de la capa {l}', weight_of: 'Peso de la unidad {k} de la capa {k0} a la unidad {j} de la capa {l}', bias: 'bias', piece: 'parte', close: 'Cerrar',
    result: 'Resultado', train: 'entrenamiento', valid: 'reservado', cost: 'costo', accuracy: 'aciertos', r2: 'R²', curves: 'Curvas',
    no_curve: 'La curva comienza tras dos épocas.', tip_curve: 'Pulse para volver a esa época', distributions: 'Distribuciones',
    hints: 'Consejos', no_hints: 'Nada fuera de lo común.', click_row: 'Pulse una marca para explicar su fila.', picture_of_unit: 'Salida de la unidad {j} de la capa {l}',
    plane_label: 'Respuesta de la red sobre el plano, con las filas', curve_label: 'Curvas de los costos por época',
    algorithm: 'Backpropagation, paso a paso', row: 'Fila', follow: 'la siguiente del entrenamiento', follows: 'sigue al entrenamiento',
    s1: 'Entrada', s2: 'Feed forward', s3: 'Gradiente local de la salida', s4: 'Back­propagation', s5: 'Derivadas y nuevos pesos',
    e1: 'La activación de la capa de entrada es la fila.', e2: 'Cada unidad suma sus entradas ponderadas y su bias, y aplica φ.',
    e3: 'Con qué rapidez cambia el costo C con z de una unidad de salida.', e3_fused: '{a} con {c}: el producto de ambos factores es simplemente a − y.',
    e4: 'Una unidad oculta reúne las δ de la capa siguiente, a través de sus pesos.', e5: 'Cada derivada es δ por la activación que está debajo.',
    e5_wait: 'Pulse «Siguiente de 5» hasta el paso 5 para ver la actualización del mini-batch.',
    e5_update: 'Esta actualización: la media de las {b} filas del mini-batch, con {rule}, η = {lr}.',
    looking_at: 'En foco: unidad {j} de la capa {l}', no_hidden: 'No hay capa oculta.', maxout_note: 'Maxout: la mayor de {n} partes; aquí gana la parte {p}.',
    more_terms: '+ {n} términos menores', this_row: 'esta fila', cost_is: 'Costo de esta fila', softmax_note: 'Softmax: cada a depende también de los otros z de su capa.',
    h_saturated: 'Capa {layer}: el {share} % de las pendientes φ′(z) es menor que 0.01: sus unidades están saturadas y aprenden despacio. Pruebe pesos iniciales menores, datos escalados o ReLU.',
    h_dead: 'Capa {layer}: {count} de {of} unidades responden 0 a todas las filas y no aprenden. Pruebe una η menor, o leaky ReLU o ELU.',
    h_step: 'Capa {layer}: la pendiente de la función escalón es 0, así que los pesos hasta ella no aprenden. Elija otra φ.',
    h_vanishing: 'δ se reduce a {ratio} de su tamaño en el camino de vuelta: las primeras capas casi no aprenden. Pruebe ReLU, menos capas o pesos iniciales mayores.',
    h_exploding: 'δ crece {ratio} veces en el camino de vuelta. Pruebe pesos iniciales menores o una η menor.',
    h_symmetric: 'Todas las unidades de la capa {layer} tienen los mismos pesos y seguirán iguales. Elija pesos iniciales aleatorios.',
    h_rising: 'El costo sube: η puede ser demasiado grande. Pruebe un tercio.',
    h_overfit: 'El costo de las filas reservadas sube desde la época {epoch} mientras baja el de entrenamiento: overfitting. Pruebe L2, dropout, menos unidades, o deténgase allí.',
    h_plateau: 'El costo casi no baja. Pruebe una η mayor, otros pesos iniciales o más unidades.',
    h_majority: 'Todas las filas reciben la misma clase. Entrene más, pruebe una η mayor o revise la escala.',
  },
};

let language = 'en';

export function setLanguage(name) {
  language = TEXTS[name] ? name : 'en';
  document.documentElement.lang = language;
}

export function getLanguage() {
  return language;
}

export function t(key, values = {}) {
  const text = TEXTS[language][key] ?? TEXTS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// Set the text, the tooltip and the label of everything that names a text.
export function translate(root = document) {
  for (const node of root.querySelectorAll('[data-text]')) node.textContent = t(node.dataset.text);
  for (const node of root.querySelectorAll('[data-tip]')) node.title = t(node.dataset.tip);
  for (const node of root.querySelectorAll('[data-label]')) node.setAttribute('aria-label', t(node.dataset.label));
}
