"""`nnbackend serve`: a real server process, asked with the standard library's client."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main

pytest.importorskip("uvicorn")
WAIT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on a table with an id, a number and a category."""
    rng = np.random.default_rng(0)
    size, city = rng.normal(size=200), rng.choice(["Lima", "Cusco", "Puno"], 200)
    answer = np.where(size + (city == "Lima") > 0.3, "yes", "no")
    lines = ["key,size,city,answer"]
    lines += [f"k{i},{size[i]:.3f},{city[i]},{answer[i]}" for i in range(200)]
    here = tmp_path_factory.mktemp("serve")
    (here / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = ["--hidden", "8", "--epochs", "3", "--device", "numpy", "--quiet"]
    assert main(["train", str(here / "t.csv"), *words, "--out", str(here / "run")]) == 0
    return here / "run"


class Server:
    """A server process and its port."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "nnbackend", "serve", *words, "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--device", "numpy"], stderr=subprocess.PIPE, text=True, env=os.environ
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not found:
            self.close()
        assert found, line
        self.port = int(found[1])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate(timeout=WAIT)

    def ask(
        self, path: str, body: Any = None, kind: str = "application/json", **headers: str
    ) -> tuple[int, Any]:
        """Return the status and the answer: JSON, or text."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        content = body if isinstance(body, (str, bytes)) else json.dumps(body)
        method = "GET" if body is None else "POST"
        try:
            connection.request(
                method, path, None if body is None else content, {"content-type": kind, **headers}
            )
            answer = connection.getresponse()
            text = answer.read().decode()
        finally:
            connection.close()
        is_json = answer.getheader("content-type", "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """Return a server of the run with small limits."""
    made = Server(str(folder), "--max-rows", "50", "--max-bytes", "20000")
    yield made
    made.close()


def test_answers_equal_the_models(server: Server, folder: Path) -> None:
    rows = [{"size": 0.4, "city": "Lima", "key": "n1"}, {"size": None, "city": "Ica", "key": "n2"}]
    status, answer = server.ask("/predict", rows)
    assert status == 200
    model = nn.load(folder / "model.safetensors", device="numpy")
    table = {"size": [0.4, np.nan], "city": ["Lima", "Ica"]}
    assert answer["predictions"] == model.predict(table).tolist()
    expected = model.predict_proba(table)
    found = [[row["no"], row["yes"]] for row in answer["probabilities"]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert answer["ids"] == {"key": ["n1", "n2"]}
    assert any("'Ica'" in note for note in answer["notes"])


def test_one_row_and_csv(server: Server) -> None:
    one = server.ask("/predict", {"city": "Puno", "size": 1})[1]
    assert len(one["predictions"]) == 1
    assert one["notes"] == []
    status, answer = server.ask("/predict", "city;size;key\nPuno;1;k7\n", "text/csv; charset=utf-8")
    assert status == 200
    assert answer["predictions"] == one["predictions"]
    assert answer["ids"] == {"key": ["k7"]}


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        ("{", "application/json", 400, "must be JSON"),
        ("[" * 100_00, "application/json", 400, "must be JSON"),
        ("3", "application/json", 422, "an object, or a list"),
        ("[]", "application/json", 422, "an object, or a list"),
        ("[[1, 2]]", "application/json", 422, "Each row must be an object"),
        ('{"size": 1}', "application/json", 422, "no column 'city'"),
        ('{"size": {"a": 1}, "city": "Lima"}', "application/json", 422, "size"),
        ('{"size": 1e999, "city": "Lima"}', "application/json", 422, "infinity"),
        ("a,b\n1\n", "text/csv", 422, "columns"),
        ("size=1", "application/x-www-form-urlencoded", 415, "Content-Type must be"),
        (json.dumps([{"size": 1, "city": "a"}] * 51), "application/json", 413, "50 rows"),
        ("size,city\n" + "1,a\n" * 60, "text/csv", 413, "50 rows"),
        (" " * 20_001, "application/json", 413, "20000 bytes"),
    ],
)
def test_wrong_requests_have_a_status_and_a_cure(
    server: Server, body: str, kind: str, status: int, said: str
) -> None:
    found, answer = server.ask("/predict", body, kind)
    assert found == status, answer
    assert said in answer["error"]
    assert "Traceback" not in answer["error"]
    assert server.ask("/health") == (200, {"status": "ok"})


def test_descriptions(server: Server) -> None:
    facts = server.ask("/model")[1]
    assert [(c["name"], c["kind"]) for c in facts["columns"]] == [
        ("key", "left out"), ("size", "number"), ("city", "category"),
    ]  # fmt: skip
    assert facts["classes"] == ["no", "yes"]
    described = server.ask("/openapi.json")[1]
    example = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert server.ask("/predict", example["example"])[0] == 200
    status, text = server.ask("/")
    assert status == 200
    assert "city" in text
    assert not re.search(r"(src|href)=.?(https?:)?//", text)  # nothing from elsewhere


def test_other_hosts_and_methods_are_refused(server: Server) -> None:
    assert server.ask("/health", Host="evil.example")[0] == 400
    assert server.ask("/predict")[0] == 405
    assert server.ask("/../../etc/passwd")[0] == 404


def test_requests_at_the_same_time_have_their_own_answers(server: Server) -> None:
    sizes = np.linspace(-2, 2, 40)
    one = [server.ask("/predict", {"size": s, "city": f"C{i}"})[1] for i, s in enumerate(sizes)]
    with ThreadPoolExecutor(8) as pool:
        tasks = [
            pool.submit(server.ask, "/predict", {"size": s, "city": f"C{i}"})
            for i, s in enumerate(sizes)
        ]
        assert [task.result()[1] for task in tasks] == one
    assert "'C7'" in one[7]["notes"][0]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(folder: Path, number: signal.Signals) -> None:
    server = Server(str(folder / "model.safetensors"))
    assert server.ask("/health")[0] == 200
    server.process.send_signal(number)
    _, error = server.process.communicate(timeout=WAIT)
    assert "Traceback" not in error
    assert server.process.returncode in (128 + number, -number, 0)


def test_models_of_arrays_take_lists(tmp_path: Path) -> None:
    from nnbackend.serving.rows import Predictor, rows_of_csv, rows_of_json

    net = nn.Network([2, 3], loss="cross_entropy", device="numpy")
    model = nn.Model(net, classes=["a", "b", "c"])
    answer = Predictor(model).answer(rows_of_json(b"[[1, 2], [3, 4]]", model, 9))
    assert answer["predictions"] == model.predict([[1.0, 2.0], [3.0, 4.0]]).tolist()
    for content in (b'[["x", 2]]', b"[[1], [2, 3]]"):
        with pytest.raises(nn.errors.DataError, match="a list of 2 numbers"):
            rows_of_json(content, model, 9)
    with pytest.raises(nn.errors.DataError, match="CSV needs a model"):
        rows_of_csv(b"a,b\n1,2\n", model, 9)


def test_a_used_port_and_wrong_limits_are_refused(
    server: Server, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(folder), "--port", str(server.port)]) == 2
    assert "Choose another port" in capsys.readouterr().err
    assert main(["serve", str(folder), "--max-rows", "0"]) == 2
