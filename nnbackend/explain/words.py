"""The texts of an explanation, in English and in Spanish."""

from __future__ import annotations

from nnbackend.errors import ArgumentError

ENGLISH = {
    "title": "One sample through a {shape} network, in five steps",
    "notation": "Layer 1 is the input and layer {L} the output. w^l_j,k is the weight from unit k "
    "of layer l-1 to unit j of layer l. Layers and units count from 1.",
    "python": "In Python, with trace = net.trace(x) and gradient = net.backprop(x, y): w^l_j,k is "
    "net.weights[l-2][k-1, j-1], b^l_j is net.biases[l-2][j-1], z^l_j is trace.z[l-2][0, j-1], "
    "a^l_j is trace.a[l-2][0, j-1], δ^l_j is gradient.deltas[l-2][0, j-1].",
    "dropout": "Dropout is off, as in prediction.",
    "scaled": "The numbers are those after the run's scaling, not those of the data: {parts}.",
    "scaled_x": "the columns of x by {kind} ({names})",
    "encoded_x": "the columns of x by the encoder of the preset (scaled, and as bins)",
    "scaled_y": "the target y by {kind}",
    "scaled_y_of": "the target y ({name}) by {kind}",
    "is": "x_{k} is {name}",
    "more_columns": "{n} in all",
    "input": "The input: a^1 = x",
    "forward": "Feed forward: z^l_j = Σ_k w^l_j,k a^l-1_k + b^l_j,   a^l_j = φ(z^l_j)",
    "output": "The local gradient of the output layer: δ^{L}_j = ∂C/∂a^{L}_j · φ'(z^{L}_j)",
    "fused": "For {phi} with {loss} this product is δ^{L}_j = a^{L}_j - y_j.",
    "softmax": "Units of a softmax depend on each other: "
    "δ^{L}_j = a^{L}_j (∂C/∂a^{L}_j - Σ_k ∂C/∂a^{L}_k a^{L}_k).",
    "backward": "Backpropagation: δ^l_j = φ'(z^l_j) · Σ_k w^l+1_k,j δ^l+1_k",
    "no_hidden": "This network has no hidden layer.",
    "partial": "The partial derivatives: ∂C/∂w^l_j,k = a^l-1_k δ^l_j,   ∂C/∂b^l_j = δ^l_j",
    "update": "The update, with η = {eta}: w ← w - η ∂C/∂w,   b ← b - η ∂C/∂b",
    "update_by": "The update by {rule}, with η = {eta}: {formula}",
    "run_uses": "The run uses {rule}.",
    "first_step": "Shown is its first step, before which {names} = 0; later steps keep a share of "
    "earlier gradients.",
    "not_shown": "Not shown: {names}.",
    "unknown_rule": "A model file alone does not say which optimizer its run uses; shown is plain "
    "gradient descent.",
    "other_rule": "The run uses {rule}; shown is plain gradient descent.",
    "layer": "Layer {l}: {name}",
    "input_layer": "Layer 1: input",
    "cost": "The cost: {formula}",
    "target": "target",
    "slope": "here φ'(z) = {slope}",
    "maxout": "a unit is the largest of its pieces; z and the weights are those of the piece that "
    "wins here, and φ' is 1",
    "units": "{shown} of {n} units: those whose a·∂C/∂a is the largest, so that C depends most on "
    "them; {left} left out",
    "outputs": "{shown} of {n} units: those with the largest δ; {left} left out",
    "weights": "{shown} of {n} weights: those with the largest ∂C/∂w; {left} left out",
    "biases": "{shown} of {n} biases: those of the units above; {left} left out",
    "terms": "{left} smaller terms",
    "wins": "piece {piece} wins",
    "after": "With all new weights and biases this sample's cost is C = {new}, before {old}.",
}
SPANISH = {
    "title": "Una muestra a través de una red {shape}, en cinco pasos",
    "notation": "La capa 1 es la de entrada y la capa {L} la de salida. w^l_j,k es el peso de la "
    "unidad k de la capa l-1 a la unidad j de la capa l. Capas y unidades se cuentan desde 1.",
    "python": "En Python, con trace = net.trace(x) y gradient = net.backprop(x, y): w^l_j,k es "
    "net.weights[l-2][k-1, j-1], b^l_j es net.biases[l-2][j-1], z^l_j es trace.z[l-2][0, j-1], "
    "a^l_j es trace.a[l-2][0, j-1], δ^l_j es gradient.deltas[l-2][0, j-1].",
    "dropout": "Dropout está desactivado, como al predecir.",
    "scaled": "Los números son los de después del escalado del entrenamiento, no los de los datos: "
    "{parts}.",
    "scaled_x": "las columnas de x con {kind} ({names})",
    "encoded_x": "las columnas de x con el codificador del preset (escaladas, y por intervalos)",
    "scaled_y": "el objetivo y con {kind}",
    "scaled_y_of": "el objetivo y ({name}) con {kind}",
    "is": "x_{k} es {name}",
    "more_columns": "{n} en total",
    "input": "La entrada: a^1 = x",
    "forward": "Feed forward (propagación hacia adelante): z^l_j = Σ_k w^l_j,k a^l-1_k + b^l_j,   "
    "a^l_j = φ(z^l_j)",
    "output": "Gradiente local de la capa de salida: δ^{L}_j = ∂C/∂a^{L}_j · φ'(z^{L}_j)",
    "fused": "Con {phi} y {loss} este producto es δ^{L}_j = a^{L}_j - y_j.",
    "softmax": "Las unidades de softmax dependen unas de otras: "
    "δ^{L}_j = a^{L}_j (∂C/∂a^{L}_j - Σ_k ∂C/∂a^{L}_k a^{L}_k).",
    "backward": "Backpropagation (retropropagación): δ^l_j = φ'(z^l_j) · Σ_k w^l+1_k,j δ^l+1_k",
    "no_hidden": "Esta red no tiene capas ocultas.",
    "partial": "Las derivadas parciales: ∂C/∂w^l_j,k = a^l-1_k δ^l_j,   ∂C/∂b^l_j = δ^l_j",
    "update": "La actualización, con η = {eta}: w ← w - η ∂C/∂w,   b ← b - η ∂C/∂b",
    "update_by": "La actualización por {rule}, con η = {eta}: {formula}",
    "run_uses": "El entrenamiento usa {rule}.",
    "first_step": "Se muestra su primer paso, antes del cual {names} = 0; los siguientes conservan "
    "parte de los gradientes anteriores.",
    "not_shown": "No se muestra: {names}.",
    "unknown_rule": "Un archivo de modelo solo no dice qué optimizador usa su entrenamiento; se "
    "muestra el descenso de gradiente simple.",
    "other_rule": "El entrenamiento usa {rule}; se muestra el descenso de gradiente simple.",
    "layer": "Capa {l}: {name}",
    "input_layer": "Capa 1: entrada",
    "cost": "El costo: {formula}",
    "target": "objetivo",
    "slope": "aquí φ'(z) = {slope}",
    "maxout": "una unidad es la mayor de sus piezas; z y los pesos son los de la pieza que gana "
    "aquí, y φ' es 1",
    "units": "{shown} de {n} unidades: aquellas cuyo a·∂C/∂a es mayor, de las que más depende C; "
    "se omiten {left}",
    "outputs": "{shown} de {n} unidades: las de mayor δ; se omiten {left}",
    "weights": "{shown} de {n} pesos: los de mayor ∂C/∂w; se omiten {left}",
    "biases": "{shown} de {n} bias: los de las unidades de arriba; se omiten {left}",
    "terms": "{left} términos menores",
    "wins": "gana la pieza {piece}",
    "after": "Con todos los pesos y bias nuevos, el costo de esta muestra es C = {new}; antes "
    "era {old}.",
}
LANGUAGES = {"en": ENGLISH, "es": SPANISH}


def words_of(lang: str) -> dict[str, str]:
    """Return the texts of a language. Raises: ArgumentError for an unknown one."""
    if lang not in LANGUAGES:
        raise ArgumentError(f"lang must be one of {', '.join(LANGUAGES)}. Received: {lang!r}.")
    return LANGUAGES[lang]
