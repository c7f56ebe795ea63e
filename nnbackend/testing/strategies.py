"""Strategies of Hypothesis that draw whole training runs: `run_cases()` and its parts.

    from hypothesis import given
    from nnbackend.testing import run_properties, strategies

    @given(strategies.run_cases(devices=("numpy", "mine")))
    def test_agreement(case):
        run_properties.devices_agree(case)

Each strategy shrinks to the shortest run: one layer of one unit, one row, no options.
"""

from __future__ import annotations

from typing import Any

from nnbackend.testing.run_cases import DATA_WORDS, FAULTS, RunCase

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "nnbackend.testing.strategies draws runs with Hypothesis. "
        f"Received: {error}. Install it with: pip install 'nnbackend[kit]'",
        name="hypothesis",
    ) from error

__all__ = [
    "cases_for",
    "data_words",
    "faulty_cases",
    "layers",
    "optimizers",
    "options",
    "run_cases",
]

HIDDEN = ("identity", "tanh", "relu", "leaky_relu:0.2", "sigmoid", "elu", "selu", "softplus",
          "silu", "gelu", "mish", "wave")  # fmt: skip
OUTPUTS = {
    "cross_entropy": ("softmax", "sigmoid"),
    "cross_entropy:0.1": ("softmax",),
    "binary_cross_entropy": ("sigmoid",),
    "poisson": ("exponential", "softplus"),
    "quadratic": ("identity", "tanh", "softmax", "wave"),
    "huber": ("identity",),
    "huber:0.3": ("identity", "relu"),
    "absolute": ("identity",),
    "quantile:0.8": ("identity",),
}
RATES = (0.1, 0.01, 0.001)
SCHEDULES = ("cosine", "step:every=1,gamma=0.5", "exponential:gamma=0.9", "one_cycle",
             "polynomial", "inverse_scaling", "warm_up", "plateau:patience=1")  # fmt: skip
# Options and layers that a device must refuse.
BAD_OPTIONS: tuple[dict[str, Any], ...] = (
    {"epochs": 0}, {"batch_size": 0}, {"batch_size": 2.5}, {"optimizer": "adma"},
    {"optimizer": "sgd:learning_rate=-1"}, {"optimizer": "adam:beta1=1"}, {"l1": -1.0},
    {"l2": float("nan")}, {"ema": 1.0}, {"schedule": "cosin"}, {"validation": 2.0},
    {"max_norm": 0.0}, {"clip_norm": -1.0}, {"shuffle": "yes"}, {"seed": -1}, {"rate": 0.1},
    {"momentum_schedule": "ramp", "optimizer": "adam"},
)  # fmt: skip
BAD_LAYERS = ("tanh:0", "tahn:2", "dropout:1.0", "maxout:2:0", "softmax:1")


def _layer(word: str, width: int) -> str:
    name, colon, number = word.partition(":")
    return f"{name}:{width}{colon}{number}"


def layers(loss: str, most: int = 3) -> st.SearchStrategy[tuple[str, ...]]:
    """Return a strategy for layers that end with one that suits the loss."""
    widths = st.integers(1, 6)
    dense = st.builds(_layer, st.sampled_from(HIDDEN), widths)
    maxout = st.builds("maxout:{}:{}".format, st.integers(1, 4), st.integers(1, 3))
    dropout = st.sampled_from(["dropout:0.3", "dropout:0.5"])
    hidden = st.lists(st.one_of(dense, maxout, dropout), max_size=most)
    # Softmax needs two units.
    outputs = st.builds(
        lambda word, width: _layer(word, max(width, 2 if word == "softmax" else 1)),
        st.sampled_from(OUTPUTS[loss]), st.integers(1, 4),
    )  # fmt: skip
    return st.builds(lambda before, last: (*before, last), hidden, outputs)


def optimizers(with_lbfgs: bool = False) -> st.SearchStrategy[str]:
    """Return a strategy for update rules, as text with parameters."""
    rate = st.sampled_from(RATES)
    names = ("sgd", "adagrad", "rmsprop", "adam", "adamw")
    plain = st.builds("{}:learning_rate={}".format, st.sampled_from(names), rate)
    momentum = st.builds(
        "sgd:learning_rate={},momentum={},nesterov={}".format,
        rate, st.sampled_from([0.5, 0.9]), st.sampled_from(["no", "yes"]),
    )  # fmt: skip
    others = ["adadelta", "adam:beta1=0.5,beta2=0.9"] + (["lbfgs"] if with_lbfgs else [])
    return st.one_of(plain, momentum, st.sampled_from(others))


def options(with_lbfgs: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for the keywords of `nnbackend.train`."""
    stopping = st.fixed_dictionaries(
        {"patience": st.integers(1, 2)},
        optional={"min_delta": st.sampled_from([0.001, 0.1]), "restore_best": st.just(False)},
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "optimizer": optimizers(with_lbfgs),
            "epochs": st.integers(1, 4),
            "batch_size": st.none() | st.integers(1, 9),
            "shuffle": st.just(False),
            "schedule": st.sampled_from(SCHEDULES),
            "l1": st.just(0.01),
            "l2": st.just(0.1),
            "weight_decay": st.just(0.1),
            "max_norm": st.just(0.8),
            "clip_norm": st.just(0.1),
            "ema": st.sampled_from([0.5, 0.9]),
            "early_stopping": stopping,
            "validation": st.sampled_from([0.2, 0.5]),
        },
    )


def data_words() -> st.SearchStrategy[tuple[str, ...]]:
    """Return a strategy for words that describe the data."""
    return st.lists(st.sampled_from(DATA_WORDS), max_size=2, unique=True).map(
        lambda words: tuple(sorted(words))
    )


@st.composite
def run_cases(
    draw: Any, devices: tuple[str, ...] = ("numpy", "reference"), with_lbfgs: bool = False
) -> RunCase:
    """Return a strategy for whole runs, of which two devices are compared."""
    loss = draw(st.sampled_from(["quadratic", *(name for name in OUTPUTS if name != "quadratic")]))
    words = draw(data_words())
    scale = draw(st.sampled_from([None, "standard", "robust"]))
    if {"far", "large"}.intersection(words) and scale is None:
        scale = "standard"
    is_value = loss.partition(":")[0] in ("quadratic", "huber", "absolute")
    first, given = draw(st.sampled_from(devices)), draw(options(with_lbfgs))
    if str(given.get("optimizer")).startswith("sgd") and draw(st.booleans()):
        given["momentum_schedule"] = "ramp:start=0.2,end=0.9,epochs=2"
    signs = (1, -1) if draw(st.booleans()) else (1,)
    stops = draw(st.lists(st.integers(1, 12), max_size=3, unique=True))
    return RunCase(
        n_in=draw(st.integers(1, 5)),
        layers=draw(layers(loss)),
        loss=loss,
        rows=draw(st.integers(1, 20)),
        data=words,
        weights=draw(st.sampled_from(["", "random", "some zero"])),
        seed=draw(st.integers(0, 99)),
        dtype=draw(st.sampled_from(["float64", "float32"])),
        scale=scale,
        scale_targets=draw(st.booleans()) if is_value else False,
        options=given,
        devices=(first, draw(st.sampled_from(devices))),
        stops=tuple(step * draw(st.sampled_from(signs)) for step in sorted(stops)),
        part=draw(st.none() | st.integers(1, 5)),
    )


@st.composite
def faulty_cases(draw: Any, devices: tuple[str, ...] = ("numpy", "reference")) -> RunCase:
    """Return a strategy for runs with one or two faults, which must be refused."""
    case: RunCase = draw(run_cases(devices))
    kinds = draw(st.lists(st.sampled_from(["data", "option", "layer"]), min_size=1, max_size=2))
    for kind in kinds:
        if kind == "data":
            case = case.changed(data=(*case.data, draw(st.sampled_from(FAULTS))))
        elif kind == "option":
            case = case.changed(options=draw(st.sampled_from(BAD_OPTIONS)))
        else:
            case = case.changed(layers=(*case.layers, draw(st.sampled_from(BAD_LAYERS))))
    return case


def cases_for(name: str, devices: tuple[str, ...]) -> st.SearchStrategy[RunCase]:
    """Return the strategy for a property of `run_properties.PROPERTIES`."""
    if name == "refused_alike":
        return faulty_cases(devices)
    return run_cases(devices, with_lbfgs=name in ("resumed_is_undisturbed", "loaded_is_saved"))
