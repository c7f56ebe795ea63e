"""The session of the live page, without a browser: its steps, its way back, its commands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from live_outlet import Collected

import nnbackend as nn
from nnbackend.errors import ArgumentError, DataError
from nnbackend.live_page import hints
from nnbackend.live_page.commands import COMMANDS, MAX_MESSAGE, read
from nnbackend.live_page.curves import MOST, Curve
from nnbackend.live_page.frames import decode, encode
from nnbackend.live_page.options import START
from nnbackend.live_page.phases import Snapshots
from nnbackend.live_page.pictures import MAX_SHOWN
from nnbackend.live_page.recorder import MOST as MOST_MOMENTS
from nnbackend.live_page.showing import Show
from nnbackend.live_page.sources import Source, from_csv, toy
from nnbackend.live_page.watching import LiveView, RunReader, WatchedControls, WatchSession
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig

New = Callable[..., Any]


# ---- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "sgd:momentum=0.9", "lbfgs"])
def test_epochs_of_the_page_are_those_of_train(new_page: New, optimizer: str) -> None:
    page = new_page(optimizer=optimizer)
    for _ in range(3):
        facts = page.do("epoch")
    data = toy("spirals", 120).data
    net = nn.Network(
        [2, nn.Dense(8, "tanh"), nn.Dense(8, "tanh"), 2], loss="cross_entropy", device="numpy"
    )
    rule: Any = {
        "sgd": nn.SGD(0.1), "adam": nn.Adam(0.01), "sgd:momentum=0.9": nn.SGD(0.1, momentum=0.9),
        "lbfgs": "lbfgs",
    }[optimizer]  # fmt: skip
    history = nn.train(net, data.x, data.y, optimizer=rule, epochs=3, batch_size=32, validation=0.2)
    assert facts["epoch"] == 3
    np.testing.assert_array_equal(page.theta, net.theta)
    curve = page.arrays["curve"]
    np.testing.assert_array_equal(curve[2], np.float32(history["train_loss"]))
    np.testing.assert_array_equal(curve[4], np.float32(history["valid_accuracy"]))


def test_steps_make_an_epoch(new_page: New) -> None:
    by_steps, by_epoch = new_page(), new_page()
    for _ in range(3):
        by_steps.do("step")
    assert by_epoch.do("epoch")["step"] == by_steps.facts["step"] == 3
    np.testing.assert_array_equal(by_steps.theta, by_epoch.theta)


def test_a_run_has_a_speed_and_ends_at_the_last_epoch(new_page: New) -> None:
    page = new_page(epochs="20")
    page.do("speed", value=40)
    page.do("run")
    begin = time.perf_counter()
    page.wait_for(lambda facts: facts["step"] >= 20)
    assert time.perf_counter() - begin > 0.3  # 20 steps at 40 a second
    page.do("speed", value=None)
    page.wait_for(lambda facts: not facts["running"])
    assert page.facts["epoch"] == 20
    assert page.facts["finished"]
    assert not page.do("run")["running"]


def test_a_slow_viewer_does_not_slow_the_training(new_page: New) -> None:
    page = new_page(epochs="300")
    page.outlet.is_slow = True
    page.do("speed", value=None)
    sent = page.outlet.count
    page.do("run")
    page.wait_for(lambda facts: facts["finished"])
    assert page.outlet.count - sent <= 3  # the replies to commands and the end


def test_frames_are_at_most_forty_a_second(new_page: New) -> None:
    page = new_page(epochs="100000")
    page.do("speed", value=None)
    page.do("run")
    count, begin = page.outlet.count, time.perf_counter()
    time.sleep(1.0)
    assert page.outlet.count - count <= 41 * (time.perf_counter() - begin) + 1
    assert page.outlet.count > count


def test_a_run_that_diverges_pauses_and_says_so(new_page: New) -> None:
    page = new_page(loss="quadratic", output_activation="identity", optimizer="sgd",
                    learning_rate="500", activation="relu,relu")  # fmt: skip
    page.do("speed", value=None)
    page.do("run")
    page.wait_for(lambda facts: bool(facts["error"]))
    assert "finite" in page.facts["error"]
    assert not page.facts["running"]
    step = page.facts["step"]
    assert page.do("back")["step"] == step - 1
    page.do("goto", step=1)
    assert np.isfinite(page.theta).all()
    page.do("set", options={"learning_rate": "0.01"})
    assert page.do("reset")["error"] == ""
    assert np.isfinite(page.theta).all()


def test_a_refused_command_does_not_pause_the_run(new_page: New) -> None:
    page = new_page(epochs="100000")
    page.do("run")
    with pytest.raises(ArgumentError):
        page.do("weight", layer=9, unit=0, input=0, value=1)
    with pytest.raises(ArgumentError):
        page.do("set", options={"learning_rate": "-1"})
    assert page.session.is_running
    page.do("set", options={"learning_rate": "0.02"})
    page.do("row", row=4)
    assert page.facts["running"]
    step = page.facts["step"]
    page.wait_for(lambda facts: facts["step"] > step)
    assert not page.do("weight", layer=2, unit=0, input=0, value=1)["running"]


# ---- back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd:momentum=0.9", "lbfgs"])
def test_back_gives_the_same_bits(new_page: New, optimizer: str) -> None:
    page = new_page(optimizer=optimizer)
    seen = [page.theta]
    for _ in range(7):
        page.do("step")
        seen.append(page.theta)
    for step in range(6, -1, -1):
        assert page.do("back")["step"] == step
        np.testing.assert_array_equal(page.theta, seen[step])
    assert not page.facts["can_back"]
    assert page.do("back")["step"] == 0
    for step in range(1, 8):
        page.do("step")
        np.testing.assert_array_equal(page.theta, seen[step])


def test_back_after_a_long_run_replays_from_a_snapshot(new_page: New) -> None:
    page = new_page(epochs="800", dropout="0.2,0")
    page.do("speed", value=None)
    page.do("run")
    page.wait_for(lambda facts: facts["finished"])
    assert len(page.controls.snapshots.items) > 1
    last, step = page.theta, page.facts["step"]
    page.do("back")
    assert page.facts["step"] == step - 1
    assert (page.theta != last).any()
    page.do("step")
    np.testing.assert_array_equal(page.theta, last)
    page.do("goto", step=step // 2)
    assert page.facts["step"] == step // 2
    assert page.arrays["curve"][1].max() <= step // 2
    page.do("run")
    page.wait_for(lambda facts: facts["finished"])
    np.testing.assert_array_equal(page.theta, last)


def test_back_crosses_an_edit_and_a_change_of_options(new_page: New) -> None:
    page = new_page()
    for _ in range(2):
        page.do("step")
    before = page.theta
    page.do("weight", layer=2, unit=1, input=0, piece=None, value=2.5)
    edited = page.theta
    page.do("step")
    page.do("set", options={"learning_rate": "0.3", "batch_size": "10"})
    np.testing.assert_array_equal(page.session.controls.phase.learning_rate, 0.3)
    assert page.facts["step"] == 3
    page.do("step")
    assert page.facts["step"] == 4
    page.do("back")
    page.do("back")
    np.testing.assert_array_equal(page.theta, edited)
    assert page.outlet.setup["options"]["learning_rate"] == "0.01"
    page.do("back")  # undoes the edit
    assert page.facts["step"] == 2
    np.testing.assert_array_equal(page.theta, before)


def test_the_optimizer_keeps_its_moments_when_the_rate_changes(new_page: New) -> None:
    page, other = new_page(optimizer="adam"), new_page(optimizer="adam")
    for each in (page, other):
        each.do("step")
    page.do("set", options={"learning_rate": "0.01"})  # the same as before
    for each in (page, other):
        each.do("step")
    np.testing.assert_array_equal(page.theta, other.theta)


def test_the_history_is_bounded() -> None:
    class Fake:
        n_bytes = 10

        def __init__(self, step: int) -> None:
            self.step = step

    kept = Snapshots(most=50, n_bytes=10_000)
    for step in range(1000):
        kept.add(Fake(step))  # type: ignore[arg-type]
    assert len(kept.items) <= 50
    steps = [item.step for item in kept.items]
    assert steps[0] == 0
    assert steps[-1] == 999
    assert steps == sorted(steps)
    assert kept.before(500).step <= 500

    curve = Curve()
    for epoch in range(1, 10_000):
        curve.add({"epoch": epoch, "step": epoch, "train_loss": 1.0})
    assert MOST // 2 - 1 <= len(curve.rows) <= MOST
    curve.cut(5000)
    assert curve.rows[-1]["step"] <= 5000


def test_the_record_of_a_run_is_bounded(new_page: New) -> None:
    page = new_page(epochs="1000")
    page.do("speed", value=None)
    page.do("run")
    page.wait_for(lambda facts: facts["finished"])
    moments = page.controls.recorder.moments
    assert MOST_MOMENTS // 2 - 1 <= len(moments) <= MOST_MOMENTS
    assert moments[0].step == 0


# ---- what is trained ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spirals", "circles", "xor", "blobs", "wave"])
def test_every_toy_set_is_learnt(new_page: New, name: str) -> None:
    page = new_page(epochs="60")
    facts = page.do("data", set=name, rows=200, noise=0.02, seed=3)
    first = facts["figures"]["train_loss"]
    for _ in range(60):
        facts = page.do("epoch")
    assert facts["figures"]["train_loss"] < 0.95 * first
    shapes = {k: v.shape for k, v in page.arrays.items()}
    is_curve = name == "wave"
    assert shapes["result"] == ({"blobs": 3, "wave": 1}.get(name, 2), 128 if is_curve else 64 * 64)
    assert shapes["units"] == (16, 128 if is_curve else 32 * 32)
    assert len(page.outlet.setup["data"]["points"]["row"]) == 200


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": "3", "activation": "relu", "dropout": "0.5"},
        {"hidden": "4,5,6", "activation": "maxout:3,elu,sigmoid", "dropout": "0,0.1,0"},
        {"hidden": "none", "activation": "tanh", "dropout": "0"},
        {"loss": "quadratic"},
        {"loss": "binary_cross_entropy"},
        {"optimizer": "rmsprop"},
        {"optimizer": "adam:learning_rate=0.2"},
        {"optimizer": "adadelta", "schedule": "cosine"},
        {"schedule": "plateau"},
        {"batch_size": "1"},
        {"batch_size": "full"},
        {"l1": "0.01", "l2": "0.01", "weight_decay": "0.1"},
        {"initializer": "normal:0.5"},
        {"dtype": "float64"},
        {"validation": "0"},
        {"scale": "standard"},
    ],
)
def test_every_option_trains(new_page: New, options: dict[str, str]) -> None:
    page = new_page()
    page.do("set", options=options)
    facts = page.do("epoch")
    assert facts["error"] == ""
    assert np.isfinite(page.theta).all()
    texts = page.outlet.setup["options"]
    assert {name: texts[name] for name in options} == options
    for _ in range(5):
        facts = page.do("substep")
    assert facts["sub"] == 5
    assert page.arrays["w2"].shape[2] == 2


def test_options_of_the_update_keep_the_weights(new_page: New) -> None:
    page = new_page()
    page.do("epoch")
    weights = page.theta
    for options in ({"learning_rate": "0.5"}, {"optimizer": "sgd"}, {"batch_size": "7"},
                    {"l2": "0.1"}, {"dropout": "0.3,0"}):  # fmt: skip
        page.do("set", options=options)
        np.testing.assert_array_equal(page.theta, weights)
        assert page.facts["step"] == 3
    page.do("set", options={"seed": "4"})
    assert (page.theta != weights).any()
    assert page.facts["step"] == 0


def test_edits_change_one_number(new_page: New) -> None:
    page = new_page(activation="tanh,maxout:2")
    net = page.controls.phase.net
    before = [w.copy() for w in net.weights], [b.copy() for b in net.biases]
    page.do("weight", layer=3, unit=2, input=5, piece=1, value=-0.75)
    page.do("bias", layer=2, unit=7, piece=None, value=0.5)
    assert net.weights[1][5, 8 + 2] == np.float32(-0.75)
    assert net.biases[0][7] == np.float32(0.5)
    assert page.arrays["w3"][1, 2, 5] == np.float32(-0.75)
    assert sum(int((a != b).sum()) for a, b in zip(before[0], net.weights, strict=True)) == 1
    assert sum(int((a != b).sum()) for a, b in zip(before[1], net.biases, strict=True)) == 1


def test_a_csv_with_chosen_columns(new_page: New) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 3)).round(3)
    lines = ["size,weight,age,kind"]
    lines += [f"{a},{b},{c},{'old' if c > 0 else 'new'}" for a, b, c in rows]
    page = new_page()
    source = from_csv("\n".join(lines).encode(), "people.csv")
    page.session.call(lambda: (page.controls.use(source), page.session.show())).result(60)
    data = page.outlet.setup["data"]
    assert data["names"] == ["size", "weight", "age"]
    assert data["classes"] == ["new", "old"]
    assert page.outlet.setup["options"]["scale"] == "standard"
    assert page.do("plane", features=[2, 0])["error"] == ""
    assert page.outlet.setup["plane"]["features"] == [2, 0]
    page.do("epoch")
    page.do("columns", columns=[2, 1])
    assert page.outlet.setup["data"]["names"] == ["age", "weight"]
    assert page.controls.phase.net.n_in == 2
    page.do("columns", columns=[])
    assert page.controls.phase.net.n_in == 3


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"a,b\n1,2", b"a,b\n1,x\n2,x\n", "ä,b\n1,2\n".encode("utf-16")]
)
def test_a_bad_csv_is_refused(content: bytes) -> None:
    with pytest.raises(DataError) as caught:
        from_csv(content, "x")
    assert "/tmp" not in str(caught.value)


def test_a_network_from_python_is_trained_in_place(new_page: New) -> None:
    net = nn.Network([2, nn.Dense(3, "relu"), 2], loss="cross_entropy", device="numpy", seed=2)
    first = net.theta.copy()
    page = new_page(fixed=net)
    page.do("epoch")
    assert (net.theta != first).any()
    for command in ({"do": "set", "options": {"hidden": "4"}},
                    {"do": "data", "set": "xor", "rows": 100, "noise": 0, "seed": 0}):  # fmt: skip
        with pytest.raises(ArgumentError, match="from Python"):
            page.do(command.pop("do"), **command)
    page.do("set", options={"learning_rate": "0.1"})
    assert page.controls.phase.net is net
    page.do("reset")
    np.testing.assert_array_equal(net.theta, first)


def test_wide_layers_show_their_largest_units(new_page: New) -> None:
    page = new_page(hidden="50,3", activation="relu,relu")
    weights = page.controls.phase.net.get_parameters()[0]
    size = np.abs(weights[0]).sum(axis=0) + np.abs(weights[1]).sum(axis=1)
    assert page.outlet.setup["layers"][1]["width"] == 50
    shown = page.outlet.setup["layers"][1]["shown"]
    assert shown == sorted(np.argsort(-size)[:MAX_SHOWN].tolist())
    np.testing.assert_array_equal(page.arrays["w2"][0], weights[0][:, shown].T)


# ---- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "JSON"),
        ("[1]", "object"),
        ('{"do": 3}', "object"),
        ('{"do": "fly"}', "unknown command"),
        ('{"do": "stepp"}', "step"),
        ('{"do": "weight"}', "layer"),
        ('{"do": "weight", "layer": 2, "unit": 0, "input": 0, "value": NaN}', "JSON"),
        ('{"do": "weight", "layer": 2, "unit": 0, "input": 0, "value": 1e999}', "value"),
        ('{"do": "weight", "layer": true, "unit": 0, "input": 0, "value": 1}', "layer"),
        ('{"do": "goto", "step": -1}', "step"),
        ('{"do": "goto", "step": 1.5}', "step"),
        ('{"do": "run", "extra": 1}', "extra"),
        ('{"do": "set", "options": {"hidden": 3}}', "text"),
        ('{"do": "data", "set": "/etc/passwd", "rows": 100, "noise": 0, "seed": 0}', "set"),
        ('{"do": "data", "set": "xor", "rows": 10000000, "noise": 0, "seed": 0}', "rows"),
        ('{"do": "columns", "columns": ["a"]}', "columns"),
        ('{"do": "speed", "value": -3}', "value"),
        ('{"do": "speed", "value": 1' + "0" * 400 + "}", "value"),
        ("[" * 10_000, "JSON"),
        ('{"do": "' + "x" * MAX_MESSAGE + '"}', "characters"),
    ],
)
def test_bad_messages_are_refused(new_page: New, text: str, match: str) -> None:
    page = new_page()
    before = page.theta
    with pytest.raises(ArgumentError, match=match):
        page.session.obey(read(text))
    np.testing.assert_array_equal(page.theta, before)


@pytest.mark.parametrize(
    "options",
    [
        {"hidden": "9999"}, {"hidden": "1,1,1,1,1,1,1,1"}, {"validation": "/etc/passwd"},
        {"validation": "0.99"}, {"device": "other"}, {"device": "gpu:9"}, {"epochs": "1000000000"},
        {"learning_rate": "-1"}, {"learning_rate": "nan"}, {"activation": "tanh,tanh,tanh"},
        {"loss": "poisson"}, {"optimizer": "adam:beta1=2"}, {"data": "x.csv"}, {"out": "/tmp"},
        {"initializer": "nothing"}, {"hidden": "x" * 300}, {"dtype": "float16"},
        {"scale": "numpy"}, {"batch_size": "0"}, {"optimizer": "lbfgs", "dropout": "0.5,0"},
    ],
)  # fmt: skip
def test_bad_options_are_refused_and_change_nothing(new_page: New, options: dict[str, str]) -> None:
    page = new_page()
    page.do("step")
    before, number = page.theta, page.outlet.setup["number"]
    with pytest.raises(ArgumentError):
        page.do("set", options=options)
    np.testing.assert_array_equal(page.theta, before)
    assert page.do("step")["step"] == 2
    assert page.outlet.setup["number"] == number


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("weight", {"layer": 1, "unit": 0, "input": 0, "value": 1}),
        ("weight", {"layer": 5, "unit": 0, "input": 0, "value": 1}),
        ("weight", {"layer": 2, "unit": 8, "input": 0, "value": 1}),
        ("weight", {"layer": 2, "unit": 0, "input": 2, "value": 1}),
        ("weight", {"layer": 2, "unit": 0, "input": 0, "piece": 1, "value": 1}),
        ("bias", {"layer": 4, "unit": 2, "value": 1}),
        ("focus", {"layer": 9, "unit": 0, "input": 0}),
        ("row", {"row": 120}),
        ("goto", {"step": 1}),
        ("plane", {"features": [0, 0]}),
        ("plane", {"features": [0, 2]}),
        ("columns", {"columns": [0, 0]}),
    ],
)
def test_places_outside_the_network_are_refused(
    new_page: New, name: str, fields: dict[str, Any]
) -> None:
    page = new_page()
    before = page.theta
    with pytest.raises(ArgumentError):
        page.do(name, **fields)
    np.testing.assert_array_equal(page.theta, before)


def test_every_command_is_carried_out(new_page: New) -> None:
    page = new_page()
    fields: dict[str, dict[str, Any]] = {
        "goto": {"step": 0}, "speed": {"value": 5}, "set": {"options": {"l2": "0.1"}},
        "data": {"set": "xor", "rows": 50, "noise": 0.1, "seed": 1}, "columns": {"columns": [1]},
        "plane": {"features": [1, 0]}, "row": {"row": 3},
        "focus": {"layer": 2, "unit": 1, "input": 1},
        "weight": {"layer": 2, "unit": 1, "input": 1, "value": 1.5},
        "bias": {"layer": 2, "unit": 1, "value": 1.5},
    }  # fmt: skip
    for name in COMMANDS:
        if name == "columns":
            page.do("data", **fields["data"])
        page.do(name, **fields.get(name, {}))
        if name == "columns":
            page.do("columns", columns=[])


def test_frames_are_read_back() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.float32)}
    facts, found = decode(encode({"x": float("nan"), "é": [1.5]}, arrays))
    assert facts["x"] is None
    assert facts["é"] == [1.5]
    np.testing.assert_array_equal(found["a"], arrays["a"])
    assert json.dumps(facts)


# ---- watching -----------------------------------------------------------------------------------


def _watched(epochs: int, **options: Any) -> tuple[Any, Any, Any]:
    """Return a trainer, its watching session and the session's outlet."""
    data = toy("circles", 100).data
    net = nn.Network([2, nn.Dense(4, "tanh"), 2], loss="cross_entropy", device="numpy")
    settings = replace(START, epochs=epochs)
    trainer = new_trainer(
        net, data.x, data.y, TrainConfig(epochs=epochs, **options), validation=0.2
    )  # fmt: skip
    outlet = Collected()
    session = WatchSession(WatchedControls(trainer, Source(data, "file"), settings), outlet=outlet)
    return trainer, session, outlet


@pytest.mark.parametrize("batch_size", [16, None])
def test_a_watched_run_has_the_same_result(batch_size: int | None) -> None:
    plain, _, _ = _watched(30, batch_size=batch_size)
    plain.run()
    trainer, session, outlet = _watched(30, batch_size=batch_size)
    trainer.callbacks = (LiveView(session),)
    looks = [session.send(read(json.dumps({"do": "row", "row": n}))) for n in (3, None)]
    trainer.run()
    assert all(look.done() for look in looks)
    np.testing.assert_array_equal(trainer.net.theta, plain.net.theta)
    assert outlet.setup["watched"]
    arrays = decode(outlet.frame)[1]
    assert arrays["curve"].shape[1] >= 1
    for command in ({"do": "step"}, {"do": "reset"}, {"do": "set", "options": {"l2": "1"}}):
        with pytest.raises(ArgumentError, match="watches a run"):
            session.obey(read(json.dumps(command)))
    np.testing.assert_array_equal(trainer.net.theta, plain.net.theta)


def test_a_page_that_fails_does_not_end_the_run_it_shows(caplog: pytest.LogCaptureFixture) -> None:
    trainer, session, outlet = _watched(5)

    def fail(frame: bytes) -> None:
        raise OSError("no viewer")

    outlet.send_frame = fail
    trainer.callbacks = (LiveView(session),)
    assert len(trainer.run()) == 5
    assert "no viewer" in caplog.text


def test_a_run_folder_is_followed() -> None:
    trainer, session, _ = _watched(1)
    rows = [{"epoch": 1, "train_loss": 0.5, "valid_loss": 0.6, "valid_accuracy": 0.7}]
    weights, biases = trainer.net.get_parameters()
    weights[0][...] = 2.0
    stamp = [1]
    reader = RunReader(session.controls, lambda: rows, lambda: (weights, biases), lambda: stamp[0])
    assert reader.poll()
    assert (trainer.net.weights[0] == 2.0).all()
    assert not reader.poll()
    rows.append({**rows[0], "epoch": 2})
    stamp[0] = 2
    assert reader.poll()
    assert len(session.controls.curve.rows) == session.controls.phase.epoch == 2


def test_facts_that_change_less_often_are_encoded_once_and_complete(new_page: New) -> None:
    """A frame has the same facts as one that is encoded whole."""
    page = new_page()
    show, controls = Show(), page.controls
    for _ in range(2):  # the second frame shares what the first made
        facts, arrays = show.frame(controls, is_paused=False)
        whole = decode(encode(facts, arrays))
        parts = decode(show.encoded(facts, arrays))
        assert parts[0] == whole[0]
        assert {"figures", "histograms", "hints", "algorithm", "step"} <= parts[0].keys()
        assert all(np.array_equal(parts[1][name], array) for name, array in whole[1].items())
    assert facts["slow"] == 1


@pytest.mark.parametrize(
    "values", [[3.0, 3.0], [1e9, np.nextafter(1e9, 2e9)], [0.0, 5e-324], [-0.0, 0.0], [np.nan]]
)
def test_a_histogram_of_nearly_equal_numbers(values: list[float]) -> None:
    found = hints._histogram(np.array(values))
    assert sum(found["counts"]) == np.isfinite(values).sum()
