"""`nnbackend serve` in a real process, asked with http.client."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main, serve

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
from nnbackend.errors import ArgumentError
from nnbackend.serving.app import Service, new_app
from nnbackend.serving.rows import answer, json_rows

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    "PYTHONWARNINGS": "error",
}
JSON, CSV = {"Content-Type": "application/json"}, {"Content-Type": "text/csv"}
HEADER = "customer,size,colour,since,good"
MAX_ROWS, MAX_BYTES = 50, 20_000


class Reply:
    """A reply: status, headers and body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A server process and requests to it, each on a connection of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: Any = None, headers: Any = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def predict(self, rows: Any, query: str = "") -> Reply:
        return self.ask("POST", f"/predict{query}", json.dumps(rows), JSON)


@contextmanager
def _server(*words: str) -> Iterator[Client]:
    command = [sys.executable, "-m", "nnbackend", "serve", *words, "--port", "0"]
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell makes background jobs ignore Ctrl-C; this process must not ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1])
        yield Client(process, int(line.split("http://")[1].split()[0].rpartition(":")[2]))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a classifier of a table with an id, numbers, categories, dates and gaps."""
    folder = tmp_path_factory.mktemp("served")
    rng, lines = np.random.default_rng(0), [HEADER]
    for i in range(120):
        size, colour = round(rng.normal(), 3), ("red", "green", "blue")[i % 3]
        day = f"2024-{1 + i % 12:02}-{1 + i % 28:02}"
        good = "yes" if size + (colour == "red") > 0.3 else "no"
        lines.append(f"c{i:03},{'' if i % 10 == 9 else size},{colour},{day},{good}")
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    words = ["--epochs", "5", "--hidden", "6", "--device", "numpy", "--column", "customer=id"]
    out = folder / "run"
    assert main(["train", str(folder / "shop.csv"), *words, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Client]:
    limits = ["--max-rows", str(MAX_ROWS), "--max-bytes", str(MAX_BYTES)]
    with _server(str(run), *limits) as client:
        yield client


ROWS = [
    {"customer": "n1", "size": 1.5, "colour": "red", "since": "2024-05-01"},
    {"customer": "n2", "size": None, "colour": "green", "since": "2024-06-30"},
    {"customer": "n3", "size": -2.0, "colour": "blue", "since": "2023-01-31"},
]


def test_json_is_answered_as_the_model_answers(server: Client, run: Path) -> None:
    model = nn.load(run / "model.safetensors", device="numpy")
    reply = server.predict(ROWS)
    assert reply.status == 200
    assert reply.json["predictions"] == model.predict(ROWS).tolist()
    p = [[row[str(label)] for label in model.classes or ()] for row in reply.json["probabilities"]]
    np.testing.assert_allclose(p, model.predict_proba(ROWS), atol=1e-6)
    assert reply.json["ids"] == {"customer": ["n1", "n2", "n3"]}
    assert reply.json["notes"] == []


def test_one_object_is_one_row(server: Client) -> None:
    reply = server.predict(ROWS[0])
    assert reply.json["predictions"] == server.predict(ROWS).json["predictions"][:1]


def test_csv_has_the_same_answer(server: Client) -> None:
    lines = ["since;customer;size;colour"]  # other order, other separator
    lines += [f"{r['since']};{r['customer']};{r['size'] or ''};{r['colour']}" for r in ROWS]
    reply = server.ask("POST", "/predict", "\n".join(lines).encode("utf-16"), CSV)
    assert reply.status == 200
    expected = server.predict(ROWS).json
    assert {**reply.json, "notes": []} == expected


def test_unusual_rows_are_answered_with_notes(server: Client) -> None:
    odd = {"size": "large", "colour": "pink", "since": "2024-05-01", "weather": "rain"}
    reply = server.predict([odd, ROWS[0]])
    assert reply.status == 200
    assert len(reply.json["predictions"]) == 2
    unused, *notes = reply.json["notes"]
    assert "'weather'" in unused
    assert {note[:13] for note in notes} == {"column 'size'", "column 'colou"}
    assert server.predict(ROWS).json["notes"] == []  # not those of the request before


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"\xff\xfe\x00", 400, "UTF-8"),
        (b"[" * 5_000, 400, "nested"),
        (b'{"size": NaN}', 400, "NaN"),
        (b'{"size": 1, "size": 2}', 400, "twice"),
        (b'{"size": ' + b"9" * 5_000 + b"}", 400, "JSON"),
        (b'"text"', 400, "list of such objects"),
        (b'[{"size": 1}, 2]', 400, "list of such objects"),
        (b"[]", 422, "at least one row"),
        (b"{}", 422, "no column"),
        (b'{"size": 1}', 422, "'colour'"),
        (b'{"size": 1e999, "colour": "red", "since": "2024-05-01"}', 422, "infinity"),
        (b'{"size": {"a": 1}, "colour": "red", "since": "2024-05-01"}', 422, "'size'"),
        (b'{"size": [1, 2], "colour": "red", "since": "2024-05-01"}', 422, "'size'"),
    ],
)
def test_malformed_json(server: Client, body: bytes, status: int, said: str) -> None:
    reply = server.ask("POST", "/predict", body, JSON)
    assert reply.status == status, reply.body
    assert said in reply.json["error"]
    assert "Traceback" not in reply.json["error"]


@pytest.mark.parametrize("body", [b"", b"size\n1\n", b"\x00\x01\x02", b'a,b\n"1,2\n'])
def test_malformed_csv(server: Client, body: bytes) -> None:
    reply = server.ask("POST", "/predict", body, CSV)
    assert reply.status == 422, reply.body
    assert "Received" in reply.json["error"]


def test_limits(server: Client) -> None:
    assert server.predict([ROWS[0]] * MAX_ROWS).status == 200
    many = server.predict([ROWS[0]] * (MAX_ROWS + 1))
    assert (many.status, str(MAX_ROWS) in many.json["error"]) == (413, True)
    lines = ["size,colour,since", *["1,red,2024-05-01"] * (MAX_ROWS + 1)]
    assert server.ask("POST", "/predict", "\n".join(lines), CSV).status == 413
    large = b" " * (MAX_BYTES + 1)
    assert server.ask("POST", "/predict", large, JSON).status == 413
    chunks = server.ask("POST", "/predict", iter([large[:9_000]] * 3), JSON)  # no Content-Length
    assert chunks.status == 413


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/predict", {}, 405),
        ("GET", "/nothing", {}, 404),
        ("POST", "/predict", {"Content-Type": "text/plain"}, 415),
        ("POST", "/predict?size=1", JSON, 422),
        ("POST", "/predict?interval=much", JSON, 422),
        ("GET", "/health", {"Host": "example.org"}, 400),
        ("GET", "/health", {"Host": "localhost.example.org:8000"}, 400),
    ],
)
def test_refused_requests(
    server: Client, method: str, path: str, headers: Any, status: int
) -> None:
    reply = server.ask(method, path, b"{}" if method == "POST" else None, headers)
    assert reply.status == status
    assert reply.json["error"]


def test_local_names_are_allowed(server: Client) -> None:
    for host in ("localhost", f"localhost:{server.port}", "[::1]:80", "127.0.0.1"):
        assert server.ask("GET", "/health", headers={"Host": host}).status == 200


def test_intervals_need_a_model_that_has_them(server: Client) -> None:
    reply = server.predict(ROWS, "?interval=0.9")
    assert reply.status == 422
    assert "tabular" in reply.json["error"]


def test_intervals_of_a_regression_by_the_preset() -> None:
    rng = np.random.default_rng(0)
    table = {"size": rng.normal(size=200).tolist(), "colour": ["red", "blue"] * 100}
    y = np.array(table["size"]) + rng.normal(size=200)
    estimator = nn.TabularMLPRegressor(max_iter=3, n_members=2, device="numpy", random_state=0)
    model = estimator.fit(table, y).to_model()
    rows = [{"size": 0.5, "colour": "red"}, {"size": -1.0, "colour": "green"}]
    got = answer(model, lambda: json_rows(json.dumps(rows).encode(), model), 10, 0.9)
    assert got["intervals"] == model.predict_interval(rows, 0.9).tolist()
    assert all(
        low < y < up for y, (low, up) in zip(got["predictions"], got["intervals"], strict=True)
    )
    assert "probabilities" not in got
    for level in (0.0, 1.5, float("nan")):
        with pytest.raises(ArgumentError, match="level"):
            answer(model, lambda: json_rows(json.dumps(rows).encode(), model), 10, level)


def test_descriptions(server: Client) -> None:
    assert server.ask("GET", "/health").json == {"status": "ok"}
    facts = server.ask("GET", "/model").json
    kinds = {column["name"]: column["kind"] for column in facts["columns"]}
    assert kinds == {"size": "number", "colour": "category", "since": "date"}
    assert facts["target"] == "good"
    assert facts["ids"] == ["customer"]
    assert sorted(map(str, facts["classes"])) == ["no", "yes"]
    assert facts["versions"]["nnbackend"] == nn.__version__
    schema = server.ask("GET", "/openapi.json").json
    content = schema["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    assert server.predict(content["example"]).status == 200
    assert server.predict(content["example"]).json["notes"] == []
    row, rows = content["schema"]["oneOf"]
    assert row["required"] == rows["items"]["required"] == ["size", "colour", "since"]


def test_the_page_loads_nothing(server: Client) -> None:
    reply = server.ask("GET", "/")
    text = reply.body.decode()
    assert reply.headers["Content-Type"].startswith("text/html")
    assert "colour" in text
    assert not any(word in text for word in ("http:", "https:", "src=", "@import", "<script"))


def test_concurrent_requests_get_their_own_answers(server: Client) -> None:
    rows = [{**ROWS[0], "size": i / 20 - 2, "colour": f"new{i}"} for i in range(60)]
    alone = [server.predict(row).json for row in rows]
    with ThreadPoolExecutor(16) as pool:
        together = [reply.json for reply in pool.map(server.predict, rows)]
    assert together == alone
    assert all(f"new{i}'" in " ".join(reply["notes"]) for i, reply in enumerate(together))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_server_cleanly(run: Path, number: signal.Signals) -> None:
    with _server(str(run)) as client:
        idle = socket.create_connection(("127.0.0.1", client.port))  # does not keep it alive
        assert client.ask("GET", "/health").status == 200
        client.process.send_signal(number)
        _, errors = client.process.communicate(timeout=30)
        idle.close()
        assert client.process.returncode == 0
        assert errors == ""


def test_a_model_of_arrays_takes_lists(tmp_path: Path) -> None:
    model = nn.Model(nn.Network([3, 2], device="numpy", seed=1))
    model.save(tmp_path / "m.safetensors")
    with _server(str(tmp_path / "m.safetensors")) as client:
        rows = [[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]]
        np.testing.assert_allclose(
            client.predict(rows).json["predictions"], model.predict(rows), rtol=1e-6
        )
        assert (
            client.predict(rows[0]).json["predictions"]
            == client.predict(rows[:1]).json["predictions"]
        )
        for wrong in ([1.0, 2.0], [[1.0, 2.0, None]], {"a": 1}):
            assert client.predict(wrong).status == 400
        reply = client.ask("POST", "/predict", "1,2,3\n0.5,-1,2\n", CSV)
        assert reply.json["predictions"] == client.predict(rows).json["predictions"]


def test_notes_are_on_rows_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings of a backend name files of the server."""
    model = nn.Model(nn.Network([2, 2], "cross_entropy", device="numpy"))
    model.fit({"a": [1.0, 2.0], "b": [0.0, 1.0]}, ["x", "y"], epochs=1)

    def read() -> Any:
        logging.getLogger("nnbackend").warning("cannot write /secret/file")
        return json_rows(b'{"a": 1, "b": "text"}', model)

    (note,) = answer(model, read, 10)["notes"]
    assert note.startswith("column 'b' has no number")
    assert "/secret/file" in caplog.text


def test_one_request_after_the_other_is_predicted() -> None:
    """The application alone: other requests wait, but the server still answers."""
    model = nn.Model(nn.Network([1, 2], device="numpy"))
    active, most, log = 0, 0, list[str]()

    def read(path: str) -> nn.data.Dataset:
        nonlocal active, most
        active += 1
        most = max(most, active)
        time.sleep(0.05)
        active -= 1
        log.append("csv")
        return nn.data.Dataset(np.ones((1, 1)), None, "rows", None)

    async def ask(method: str, path: str) -> int:
        scope = {"type": "http", "method": method, "path": path, "query_string": b"",
                 "headers": [(b"content-type", b"text/csv")]}  # fmt: skip
        codes = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"1", "more_body": False}

        async def send(message: Any) -> None:
            codes.append(message.get("status"))

        await app(scope, receive, send)
        log.append(path)
        return int(codes[0])

    async def ask_all() -> list[int]:
        paths = [("POST", "/predict")] * 3 + [("GET", "/health")]
        return await asyncio.gather(*(ask(*words) for words in paths))

    app: Any = new_app(Service(model, "m", read, 10, 10))
    handlers = list(logging.getLogger("nnbackend").handlers)
    assert asyncio.run(ask_all()) == [200] * 4
    assert most == 1
    assert log[0] == "/health"
    assert logging.getLogger("nnbackend").handlers == handlers


def test_small_answers_are_sent_at_once() -> None:
    """Otherwise each waits 40 ms for the client's acknowledgement (Nagle's algorithm)."""
    found = []

    async def accept(reader: Any, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    async def connect() -> None:
        with serve.listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(accept, sock=listener):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                await reader.read()
                writer.close()

    asyncio.run(connect())
    assert found == [1]


def test_wrong_use(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    assert main(["serve", str(run), "--port", "70000", "--max-rows", "0"]) == 2
    shown = capsys.readouterr().err
    assert "--port" in shown
    assert "--max-rows" in shown
    with socket.create_server(("127.0.0.1", 0)) as used:
        assert main(["serve", str(run), "--port", str(used.getsockname()[1])]) == 2
    assert "free port" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", str(run)]) == 2
    assert 'pip install "nnbackend[serve]"' in capsys.readouterr().err


def test_the_clients_of_the_page_get_answers(
    server: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(\w+)\n(.*?)```", page, flags=re.DOTALL)
    clients = [block for block in blocks if "127.0.0.1:8000/predict" in block[1]]
    assert [language for language, _ in clients] == ["sh", "python"]
    for language, text in clients:
        code = text.replace(":8000", f":{server.port}")
        if language == "python":
            exec(code, {})
            assert capfd.readouterr().out.endswith("[]\n")  # no notes
        elif shutil.which("curl"):
            subprocess.run(["bash", "-c", code], check=True)
            answer = json.loads(capfd.readouterr().out)
            assert answer["ids"] == {"customer": ["n1"]}
            assert "'pink'" in answer["notes"][0]
