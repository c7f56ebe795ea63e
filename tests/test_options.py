"""One table of options: keywords, command line and docs agree, and all faults are reported."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.cli.settings import parse, read_config, to_toml
from nnbackend.config import DEFAULTS, SETTINGS, Settings, TrainOptions, UpdateOptions
from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.options import (
    AT_LEAST_0,
    Checked,
    all_of,
    faults_of,
    keywords_of,
    option,
    or_none,
    raise_all,
    table,
)
from nnbackend.persistence import config_data, run_state
from nnbackend.suggestions import nearest
from nnbackend.training.config import TrainConfig
from nnbackend.training.optimizers import get_optimizer

X, Y = [[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0]


def network(**options: Any) -> nn.Network:
    return nn.Network([2, 3, 1], device="numpy", **options)


# ---- one table --------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [nn.train, nn.Model.fit], ids=["train", "fit"])
def test_the_keywords_are_the_options(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters
    shown = {n: p.default for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    defaults = {name: getattr(TrainOptions(), name) for name in table(TrainOptions)}
    assert shown == defaults | {
        "validation": None,
        "sample_weight": None,
        "callbacks": (),
        "communicator": None,
    }


def test_the_docstring_has_the_help_of_each_option() -> None:
    text = " ".join((nn.train.__doc__ or "").split())
    for name, about in table(TrainOptions).items():
        assert f"{name}: {' '.join(about.help_text('None').split())}." in text


def test_the_command_line_has_every_option_of_training() -> None:
    assert {n for n, about in table(TrainOptions).items() if about.metavar} < SETTINGS.keys()
    assert table(UpdateOptions).keys() < SETTINGS.keys()


@pytest.mark.parametrize("name", [n for n in SETTINGS if DEFAULTS[n] is not None])
def test_every_default_is_valid_and_can_be_written(name: str) -> None:
    kind = SETTINGS[name].kind
    assert name == "data" or kind.is_good(DEFAULTS[name])
    assert name == "data" or parse(name, kind.text(DEFAULTS[name])) == DEFAULTS[name]


def test_settings_are_as_written(tmp_path: Path) -> None:
    settings = Settings(
        data="iris", clip_norm=2.5, ema=None, batch_size=None, shuffle=False, header=True,
        hidden=(), momentum_schedule="ramp:start=0.1", schedule="constant", max_norm=None,
    )  # fmt: skip
    (tmp_path / "config.toml").write_text(to_toml(settings))
    assert Settings(**read_config(tmp_path / "config.toml")) == settings


def test_a_new_option_is_declared_once() -> None:
    """One field is a keyword with its default, its check and its help."""

    @dataclass(kw_only=True)
    class Options(TrainOptions):
        made_up: float | None = option(None, or_none(AT_LEAST_0, "0"), "an option of this test")

    @keywords_of(Options)
    def fit(net: str, x: int, y: int, options: Options) -> float | None:
        """Fit.

        {options}
        """
        raise_all(faults_of(options))
        return options.made_up

    assert fit("net", 1, y=2, made_up=0.5) == 0.5
    assert inspect.signature(fit).parameters["made_up"].default is None
    assert "made_up: an option of this test." in (fit.__doc__ or "")
    with pytest.raises(ArgumentError, match=r"^made_up must be a number, at least 0, or None. Rec"):
        fit("net", 1, 2, made_up=-1.0)


# ---- faults ------------------------------------------------------------------------------------


def test_all_invalid_options_of_a_call_are_reported() -> None:
    with pytest.raises(ArgumentError) as caught:
        nn.train(network(), X, Y, epochs=0, clip_norm=-1.0, seed=2.5, class_weight="balanced")
    lines = str(caught.value).splitlines()
    assert [line.partition(" must")[0] for line in lines[1:]] == ["epochs", "seed", "clip_norm"]
    assert lines[0].startswith("train has no option 'class_weight'. Received: class_weight='bal")
    assert {fault.option: fault.received for fault in caught.value.faults} == {
        "epochs": 0, "seed": 2.5, "clip_norm": -1.0,
    }  # fmt: skip
    with pytest.raises(ArgumentError) as caught:
        nn.Network([2, 0], "mse", dtype="float16", seed=-1, device="numpy")
    assert [fault.option for fault in caught.value.faults] == ["dtype", "seed", "loss"]
    with pytest.raises(ArgumentError) as caught:
        nn.Model(network(), scale="standart", scale_targets=2, classes=[1, 1])
    assert len(str(caught.value).splitlines()) == 3
    with pytest.raises(ArgumentError) as caught:
        nn.train(
            network(), X, Y, epochs=0, schedule="stap", max_norm=[1.0, 2.0, 3.0],
            optimizer="adam:beta1=2",
        )  # fmt: skip
    names = [fault.option for fault in caught.value.faults]
    assert names == ["optimizer", "epochs", "schedule", "max_norm"]


def test_errors_that_are_lists_are_joined() -> None:
    def refuse(*parts: Any) -> Callable[[], None]:
        def call() -> None:
            raise ArgumentError(*parts)

        return call

    a, b = Fault("a", "b", 1), Fault("c", "d", 2)
    with pytest.raises(ArgumentError) as caught:
        all_of(refuse("text ", Mention("x", 3), "."), lambda: all_of(refuse(a), refuse(b)))
    assert str(caught.value).splitlines() == [
        "text x=3.", "a must be b. Received: a=1.", "c must be d. Received: c=2.",
    ]  # fmt: skip
    assert caught.value.faults == (a, b)


def test_all_invalid_options_of_a_command_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train iris --epochs 0 --loss mse --clip-norm x --schedule step:at=3"
    assert main(words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    names = [line.removeprefix("nnbackend: error: ").split()[0] for line in lines]
    assert names == ["--epochs", "--loss", "--clip-norm", "--schedule"]
    assert lines[2].endswith("a number above 0, or 0 for none. Received: --clip-norm x.")
    assert lines[3].endswith("step has no parameter 'at'. Known: every, gamma.")
    Path("c.toml").write_text('data = "iris"\nepochs = 0\nlos = "x"\nl1 = -1\n')
    assert main(["train", "--config", "c.toml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("c.toml: ")[1].split()[0] for line in lines] == ["epochs", "unknown", "l1"]
    words = "train iris --hidden 5,5 --dropout 0.1,0.1,0.1 --activation relu,tanh,elu"
    assert main(words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("nnbackend: error: ").split()[0] for line in lines] == [
        "--activation", "--dropout",
    ]  # fmt: skip


def test_unknown_options_of_a_command_are_reported_with_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text("l1 = -1\n")
    words = "train iris --epohcs 3 --ema-decay 4 --l2 -1 --loss huber:-1 --config c.toml"
    assert main(words.split()) == 2
    lines = capsys.readouterr().err.removeprefix("nnbackend: error: ").splitlines()
    assert lines == [
        "train has no option or argument '--epohcs'. Did you mean '--epochs'?",
        "train has no option or argument '--ema-decay'. See: nnbackend train --help",
        "c.toml: l1 must be a number, at least 0. Received: l1='-1'.",
        "--l2 must be a number, at least 0. Received: --l2 -1.",
        "--loss must be a name, which may end in :NUMBER or :KEY=NUMBER,.... Received: --loss "
        "huber:-1. threshold of huber must be above 0. Received: threshold=-1.0.",
    ]  # fmt: skip


def test_an_optimizer_may_name_its_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = "train iris --epochs 1 --hidden 3 --device numpy --quiet --optimizer"
    assert main([*run.split(), "sgd:0.02,momentum=0.5", "--out", "a"]) == 0
    assert (
        main([*run.split(), "sgd", *["--learning-rate", "0.02", "--momentum", "0.5", "--out", "b"]])
        == 0
    )
    a, b = Path("a/last.safetensors").read_bytes(), Path("b/last.safetensors").read_bytes()
    assert a == b
    config = read_config(Path("a/config.toml"))
    assert (config["learning_rate"], config["momentum"]) == (0.02, 0.5)
    assert main(["train", "--config", "a/config.toml", "--quiet", "--out", "c"]) == 0
    assert Path("c/last.safetensors").read_bytes() == a


def test_lbfgs_may_have_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train iris --hidden 200 --epochs 1 --device numpy --quiet --optimizer lbfgs:memory=5"
    assert main(words.split()) == 0
    assert read_config(Path("runs/iris-001/config.toml"))["dropout"] == (0.0,)


def test_a_checkpoint_may_be_older_than_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option that a stored config lacks has its default, unless every checkpoint has it."""
    described = config_data.describe_config(TrainConfig(optimizer=nn.Adam(), epochs=3))
    del described["clip_norm"]
    with pytest.raises(KeyError):
        config_data.build_config(described, {})
    monkeypatch.setattr(config_data, "OLDEST", config_data.OLDEST - {"clip_norm"})
    assert config_data.build_config(described, {}).clip_norm is None
    described_as = config_data.describe_config

    def older(config: TrainConfig) -> dict[str, Any]:
        return {k: v for k, v in described_as(config).items() if k != "clip_norm"}

    with monkeypatch.context() as before:
        before.setattr(run_state, "describe_config", older)
        nn.train(network(), X, Y, epochs=2, callbacks=[nn.Checkpoints(tmp_path, epochs=1)])
    _, history = nn.resume(tmp_path, X, Y, epochs=3)
    assert len(history) == 3


@pytest.mark.parametrize("option", ["--learning-rate", "--momentum"])
def test_a_rate_given_twice_is_refused(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    words = f"train iris --optimizer sgd:0.02,momentum=0.9 {option} 0.5"
    assert main(words.split()) == 2
    assert f"{option} must be given once. Received: {option} 0.5 and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: network(hiden=3), "Network has no option 'hiden'. Received: hiden=3. Known: act"),
        (lambda: nn.Adam(lr=0.1), r"Adam has no option 'lr'. .* Did you mean 'learning_rate'\?"),
        (lambda: nn.Dense(3, initializer="zeros"), "Dense has no option 'initializer'"),
        (lambda: nn.Model(network(), scaler="unit"), r"Model has no option .* 'scale'\?"),
        (lambda: nn.EarlyStopping(patients=3), r"EarlyStopping has no option .* 'patience'\?"),
        (lambda: nn.Model(network()).fit(X, Y, n_epochs=3), r"fit has no option .* 'epochs'\?"),
    ],
)
def test_an_unknown_keyword_is_answered_with_the_known_ones(
    call: Callable[[], Any], text: str
) -> None:
    with pytest.raises(ArgumentError, match=text):
        call()


def test_an_error_keeps_its_parts_in_a_pickle() -> None:
    fault = Fault("epochs", "a whole number", 0.5, ("Use ", Mention("epochs", 1), "."))
    error = pickle.loads(pickle.dumps(ArgumentError(fault)))
    assert error.faults == (fault,)
    assert str(error) == "epochs must be a whole number. Received: epochs=0.5. Use epochs=1."


def test_constants_of_a_rule_are_checked_together() -> None:
    with pytest.raises(ArgumentError) as caught:
        nn.Adam(learning_rate=0.0, beta1=1.0)
    assert [fault.option for fault in caught.value.faults] == ["learning_rate", "beta1"]


def test_a_user_class_may_take_any_keyword() -> None:
    class Free(Checked):
        def __init__(self, **options: Any) -> None:
            self.options = options

    assert Free(a=1).options == {"a": 1}


# ---- names with parameters -----------------------------------------------------------------------


def test_a_name_may_have_parameters() -> None:
    net = nn.Network([2, 3, 1], "huber:2", activation="leaky_relu:alpha=0.3", device="numpy")
    assert net.loss.params == (2.0,)
    assert net.layers[0].activation.params == (0.3,)  # type: ignore[attr-defined]
    rule = get_optimizer("sgd:momentum=0.9,nesterov=yes")
    assert rule == nn.SGD(momentum=0.9, nesterov=True)
    chosen = nn.schedules.get_schedule("warm_up:epochs=2,then=cosine")
    assert chosen == nn.schedules.WarmUp(2.0, "cosine")
    history = nn.train(network(), X, Y, optimizer="sgd:0.5", schedule="step:every=1", epochs=2)
    assert history["learning_rate"] == pytest.approx([0.5, 0.05])


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("step:evry=3", "step has no parameter 'evry'. Known: every, gamma. Did you mean 'every'?"),
        ("step:every=x", "step needs a whole number for every."),
        ("step:2,0.5", "step takes its first parameter only without a name. Received: '0.5'."),
        ("step:2,every=3", "step has every twice."),
        ("constant:3", "constant has no parameters."),
        ("step:every=0", "every must be a number above 0. Received: every=0."),
    ],
)
def test_invalid_parameters_of_a_name_are_refused(name: str, cure: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        nn.train(network(), X, Y, schedule=name)
    assert str(caught.value).endswith(cure)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: nn.train(network(), X, Y, lr=0.1), r"Use optimizer=nnbackend.Adam\(learning_r"),
        (lambda: nn.train(network(), X, Y, patience=3), "EarlyStopping"),
        (lambda: nn.train(network(), X, Y, optimizer=nn.Adam), r"Call it: Adam\(\)"),
        (lambda: nn.train(network(), X, Y, early_stopping=nn.EarlyStopping), "must be an nnbacke"),
        (
            lambda: nn.train(network(), X, Y, validation=1.5),
            r"^validation must be .*: validation=1",
        ),
        (lambda: nn.train(network(), X, Y, max_norm="1"), r"^[^\n]*, or None. .*max_norm='1'.$"),
        (lambda: nn.train(network(), X, Y, max_norm=object()), "^max_norm must be"),
        (lambda: nn.SGD(nesterov="yes"), "nesterov must be True or False"),
        (
            lambda: nn.train(
                network(), X, Y, optimizer="sgd", momentum_schedule="ramp:start=0.5,end=1.5"
            ),
            "momentum_schedule must be a schedule of numbers of at least 0 and below 1",
        ),
        (lambda: nn.train(network(), X, Y)[-1], "history has no column -1"),
    ],
)
def test_likely_mistakes_have_their_cure(call: Callable[[], Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        call()


# ---- suggestions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("cos", "cosine"), ("clip", "clip_norm"), ("num_epochs", "epochs"), ("epoch", "epochs"),
        ("class_weight", None), ("verbose", None), ("n_jobs", None), ("lion", None),
        ("randomstate", "seed"), ("batchsize", "batch_size"),
    ],
)  # fmt: skip
def test_only_a_near_name_is_suggested(given: str, meant: str | None) -> None:
    known = [*table(TrainOptions), "cosine", "constant", "loss", "sample_weight"]
    assert nearest(given, known) == meant
