// The session's errors, which are English, in the language of the page.
import { getLanguage, t } from './text.js';

// What a field must be, and the first sentences of the usual errors; $1 is a part of the text.
const EXPECTED = [
  [/^a number above 0$/, 'un número mayor que 0'],
  [/^a number, at least 0$/, 'un número mayor o igual que 0'],
  [/^(a number|numbers) of at least 0 and below 1$/, 'un número desde 0 y menor que 1'],
  [/^a fraction .*$/, 'una fracción desde 0 y menor que 1'],
  [/^a whole number, at least (\d+)$/, 'un número entero, $1 o más'],
  [/^a whole number, at least 1, or (None|full)$/, 'un número entero, 1 o más, o full'],
  [/^a whole number from (\S+) to (.+)$/, 'un número entero de $1 a $2'],
  [/^a whole number from (\S+)$/, 'un número entero desde $1'],
  [/^(?:a number )?from (\S+) to (\S+)$/, 'un número de $1 a $2'],
  [/^below (\S+)$/, 'menor que $1'],
  [/^at most (\d+)$/, 'a lo más $1'],
  [/^at most (\d+) layers of at most (\d+) units$/, 'a lo más $1 capas de a lo más $2 unidades'],
  [/^one of (.+)$/, 'uno de $1'],
];
const SENTENCES = [
  [/^data\.csv: a table must have data rows\. Received: only the header (.*)\.$/, 'El archivo debe tener filas de datos. Recibido: solo el encabezado $1.'],
  [/^data\.csv: a table must have rows\. Received: an empty file\.$/, 'El archivo debe tener filas. Recibido: un archivo vacío.'],
  [/^data\.csv: every row must have (\d+) cells, as the first row\. Received: (\d+) cells in line (\d+)\..*$/, 'Cada fila debe tener $1 celdas, como la primera. Recibido: $2 celdas en la línea $3.'],
  [/^data\.csv: the text must have a known encoding\..*$/, 'No se puede leer el texto del archivo. Guárdelo como UTF-8.'],
  [/^The target, the last column, must have at least two values\..*$/, 'La última columna, la salida deseada, debe tener al menos dos valores. Ponga otra columna al final.'],
  [/^The page takes at most (\d+) rows and (\d+) features\. Received: (\d+) rows, (\d+) features\..*$/, 'La página acepta hasta $1 filas y $2 columnas de entrada. Recibido: $3 filas, $4 columnas. Use nnbackend train para más.'],
  [/^A file may have (\d+) bytes\..*$/, 'Un archivo puede tener $1 bytes. Recibido: más.'],
  [/^The file must be a config\.toml\..*$/, 'El archivo debe ser un config.toml. Recibido: otro contenido.'],
  [/^The loss is no longer a finite number\..*$/, 'El costo ya no es un número finito. Vuelva atrás, o elija una tasa de aprendizaje menor y vuelva al inicio.'],
];

const replaced = (table, text) => {
  const found = table.find(([pattern]) => pattern.test(text));
  return found ? text.replace(found[0], found[1]) : '';
};

function spanish(line) {
  const whole = replaced(SENTENCES, line);
  if (whole) return whole;
  const [, name, expected, received] = line.match(/^(\w+) must be (.+?)\. Received: (.*?)\.(?: .*)?$/) ?? [];
  const phrase = expected && replaced(EXPECTED, expected);
  if (phrase) return `${t(name)} debe ser ${phrase}. Recibido: ${received.replace(`${name}=`, '')}.`;
  return name ? `${t(name)}, mensaje en inglés: ${line}` : `Mensaje en inglés: ${line}`;
}

// The texts of the page itself are in its language already.
export function inLanguage(text) {
  if (getLanguage() !== 'es' || !text || text === t('lost')) return text;
  return text.split('\n').map(spanish).join('\n');
}
