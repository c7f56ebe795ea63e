"""The server of the live page: what is refused (token, Host, Origin, sizes) has no effect."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
with warnings.catch_warnings():  # that newer versions of Starlette prefer httpx2
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.live_page.api import options_of, source_of
from nnbackend.live_page.app import MAX_UPLOAD, MAX_VIEWERS, PAGE, Hub, new_app, new_token
from nnbackend.live_page.frames import decode
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.server import run_server
from nnbackend.live_page.session import Session
from nnbackend.live_page.sources import toy

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1:8000"
ORIGIN = {"Host": HOST, "Origin": f"http://{HOST}"}
TOKEN = "a-token"
FORBIDDEN = r"innerHTML|outerHTML|insertAdjacent|eval\(|new Function|document\.write"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
    "PYTHONWARNINGS": "error",
}


class Server:
    """The application with its session and a client of the right host."""

    def __init__(self) -> None:
        options = PageOptions().changed({"device": "numpy"}, ("numpy",))
        self.hub = Hub()
        self.session = Session(
            toy("spirals", 60), options, devices=("numpy",), outlet=self.hub
        )  # fmt: skip
        hosts = frozenset({"127.0.0.1", "localhost"})
        app = new_app(self.session, self.hub, TOKEN, hosts)
        self.client = TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)
        self.session.start()
        self.session.call(lambda: None).result(60)

    @property
    def theta(self) -> np.ndarray:
        phase = self.session.controls.phase
        return self.session.call(lambda: phase.net.backend.to_host(phase.state.theta)).result(60)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.client:
        yield made
    made.session.close()


def _ask(server: Server, socket: Any, **command: Any) -> dict[str, Any]:
    """Send a command; return the reply if it is an error, else the facts of the newest frame."""
    socket.send_text(json.dumps({"id": 7, **command}))
    while True:
        message = socket.receive()
        if message.get("text") is None:
            socket.send_text("shown")
            continue
        found = json.loads(message["text"])
        if found["type"] == "reply":
            assert found["id"] == 7
            return dict(found) if found["error"] else decode(server.hub.frame)[0]


def test_the_page_and_its_files(server: Server) -> None:
    page = server.client.get(f"/{TOKEN}/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"style=|onclick|<script>", page.text)  # the policy allows none
    for path in PAGE.iterdir():
        answer = server.client.get(f"/{TOKEN}/{path.name}")
        assert answer.status_code == 200
        assert answer.content == path.read_bytes()
    total = sum(path.stat().st_size for path in PAGE.iterdir())
    assert total < 300_000
    for path in PAGE.glob("*.js"):
        assert not re.search(FORBIDDEN, path.read_text()), path
        assert not re.search(r"https?://(?!www\.w3\.org)", path.read_text()), path


def test_every_import_of_the_page_exists() -> None:
    for path in PAGE.glob("*.js"):
        for name in re.findall(r"from '\./([^']+)'", path.read_text()):
            assert (PAGE / name).is_file(), f"{path.name} imports {name}"


def test_both_languages_have_the_same_texts() -> None:
    text = (PAGE / "text.js").read_text()
    parts = re.search(r"en: \{(.*?)\n  \},\n  es: \{(.*?)\n  \},", text, re.S)
    assert parts is not None
    english, spanish = (
        dict(re.findall(r"(\w+): '((?:[^'\\]|\\.)*)'", part)) for part in parts.groups()
    )
    assert english.keys() == spanish.keys()
    for key, value in english.items():
        assert set(re.findall(r"\{\w+\}", value)) == set(re.findall(r"\{\w+\}", spanish[key])), key
    used = set()
    for path in PAGE.iterdir():
        used |= set(re.findall(r"\bt\('(\w+)'", path.read_text()))
        used |= set(re.findall(r'data-(?:text|tip|label)="(\w+)"', path.read_text()))
    assert used - {"training"} <= english.keys(), used - english.keys()


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 403),
        ("/wrong/", {}, 403),
        (f"/{TOKEN}x/", {}, 403),
        (f"/{TOKEN[:-1]}/", {}, 403),
        (f"//{TOKEN}/", {}, 403),
        (f"/{TOKEN}/", {"Host": "evil.example:8000"}, 400),
        (f"/{TOKEN}/", {"Host": "127.0.0.1.evil.example"}, 400),
        (f"/{TOKEN}/", {"Origin": "http://evil.example"}, 403),
        (f"/{TOKEN}/", {"Origin": "null"}, 403),
        (f"/{TOKEN}/nothing.js", {}, 404),
        (f"/{TOKEN}/../app.py", {}, 403),
        (f"/{TOKEN}/%2e%2e/app.py", {}, 404),
        (f"/{TOKEN}/..%2fapp.py", {}, 404),
        (f"/{TOKEN}/%2e%2e%2f%2e%2e%2fsession.py", {}, 404),
        (f"/{TOKEN}/export/..%2f..%2fapp.py", {}, 404),
        (f"/{TOKEN}/export/passwd", {}, 404),
        (f"/{TOKEN}/%00", {}, 404),
        (f"/{TOKEN}/socket", {}, 404),
    ],
)
def test_other_requests_are_refused(
    server: Server, path: str, headers: dict[str, str], status: int
) -> None:
    answer = server.client.get(path, headers=headers)
    assert answer.status_code == status, answer.text
    assert "import" not in answer.text
    assert "<" not in answer.text


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wrong/socket", ORIGIN),
        ("/socket", ORIGIN),
        (f"/{TOKEN}/socket", {"Host": HOST}),
        (f"/{TOKEN}/socket", {"Host": HOST, "Origin": "http://evil.example"}),
        (f"/{TOKEN}/socket", {"Host": HOST, "Origin": f"https://{HOST}"}),
        (f"/{TOKEN}/socket", {**ORIGIN, "Host": "evil.example"}),
    ],
)
def test_other_sockets_are_refused(server: Server, path: str, headers: dict[str, str]) -> None:
    before = server.theta
    with pytest.raises(WebSocketDisconnect), server.client.websocket_connect(path, headers=headers):
        pass
    assert not server.hub.viewers
    np.testing.assert_array_equal(server.theta, before)


def test_a_page_trains(server: Server) -> None:
    with server.client.websocket_connect(f"/{TOKEN}/socket", headers=ORIGIN) as page:
        setup = json.loads(page.receive_text())
        assert setup["type"] == "setup"
        assert setup["data"]["rows"] == 60
        assert _ask(server, page, do="step")["step"] == 1
        assert _ask(server, page, do="back")["step"] == 0
        assert "unknown command" in _ask(server, page, do="fly")["error"]
        assert "at most" in _ask(server, page, do="set", options={"hidden": "5000"})["error"]
        assert _ask(server, page, do="epoch")["epoch"] == 1


def test_bad_messages_change_nothing_and_do_not_end_the_page(server: Server) -> None:
    before = server.theta
    with server.client.websocket_connect(f"/{TOKEN}/socket", headers=ORIGIN) as page:
        for text in ("", "{", "[]", "null", '{"do": "__class__"}', '{"do": "_edit"}',
                     '{"do": "use"}', "x" * 20_000, '{"do":"weight","value":"1"}'):  # fmt: skip
            page.send_text(text)
        page.send_bytes(b"\x00" * 100)
        replies = 0
        while replies < 10:
            message = page.receive()
            if message.get("text") and json.loads(message["text"])["type"] == "reply":
                assert json.loads(message["text"])["error"]
                replies += 1
        np.testing.assert_array_equal(server.theta, before)
        assert _ask(server, page, do="step")["step"] == 1


def test_several_pages_see_the_same_network(server: Server) -> None:
    address = f"/{TOKEN}/socket"
    with ExitStack() as stack:
        pages = [
            stack.enter_context(server.client.websocket_connect(address, headers=ORIGIN))
            for _ in range(MAX_VIEWERS)
        ]
        with (
            pytest.raises(WebSocketDisconnect),
            server.client.websocket_connect(address, headers=ORIGIN) as page,
        ):
            page.receive()
        assert _ask(server, pages[0], do="step")["step"] == 1
        assert _ask(server, pages[1], do="step")["step"] == 2
    for _ in range(100):
        if not server.hub.viewers:
            break
        time.sleep(0.05)
    assert not server.hub.viewers


def test_a_csv_is_sent(server: Server) -> None:
    rows = "\n".join(f"{i % 7 / 7},{i % 5 / 5},{'a' if i % 2 else 'b'}" for i in range(40))
    url = f"/{TOKEN}/send/data?name=mine.csv"
    before = server.theta
    for headers, content, status in (
        ({}, "x,y,kind\n" + rows, 403),
        ({"Origin": "http://evil.example"}, "x,y,kind\n" + rows, 403),
        (ORIGIN, "x" * (MAX_UPLOAD + 1), 413),
        (ORIGIN, "no table", 422),
        (ORIGIN, "a,b\n1,2\n", 422),
    ):
        assert server.client.post(url, content=content, headers=headers).status_code == status
        np.testing.assert_array_equal(server.theta, before)
    assert (
        server.client.post(f"/{TOKEN}/send/other", content="x", headers=ORIGIN).status_code == 404
    )
    assert server.client.post(f"/{TOKEN}/", content="x", headers=ORIGIN).status_code in (404, 405)
    answer = server.client.post(url, content="x,y,kind\n" + rows, headers=ORIGIN)
    assert answer.status_code == 200, answer.text
    assert json.loads(server.hub.setup)["data"]["name"] == "mine.csv"
    assert json.loads(server.hub.setup)["data"]["classes"] == ["a", "b"]


def test_a_body_without_a_length_is_limited(server: Server) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b"1,2\n" * 10_000

    answer = server.client.post(f"/{TOKEN}/send/data", content=endless(), headers=ORIGIN)
    assert answer.status_code == 413
    text = server.client.post(
        f"/{TOKEN}/send/config", content="hidden = [3]\nactivation = 'relu'", headers=ORIGIN
    )
    assert text.status_code == 200
    assert json.loads(server.hub.setup)["options"]["hidden"] == "3"


def test_exports_are_downloads(server: Server) -> None:
    for name in ("live.csv", "config.toml", "train.py", "replay.html"):
        answer = server.client.get(f"/{TOKEN}/export/{name}")
        assert answer.status_code == 200
        assert name in answer.headers["content-disposition"]


def test_tokens_differ() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert all(len(new_token()) >= 32 for _ in range(10))


# ---- the process --------------------------------------------------------------------------------


def _start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "nnbackend", "live", "--no-browser", "--device", "numpy"]
    process = subprocess.Popen(
        [*command, *arguments],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    if found is None:
        _, errors = process.communicate(timeout=30)
        raise AssertionError(line + errors)
    return process, found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_hundred_connections_and_ctrl_c(number: int) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("wsproto")
    process, url = _start("xor", "--hidden", "3")
    try:
        host, port = url.split("/")[2].split(":")
        idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(120)]
        for each in idle:
            each.sendall(f"GET {url} HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        first = idle[0].recv(200)
        assert first.startswith((b"HTTP/1.1 400", b"HTTP/1.1 503"))
        for each in idle:
            each.close()
        deadline = time.monotonic() + 10
        while True:
            with socket.create_connection((host, int(port)), timeout=10) as client:
                path = "/" + url.split("/", 3)[3]
                client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                answer = client.recv(500)
            if answer.startswith(b"HTTP/1.1 200") or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert answer.startswith(b"HTTP/1.1 200")
    finally:
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert set(errors.splitlines()) <= {"WARNING:  Exceeded concurrency limit."}


def test_wrong_use(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["live", "--port", "99999", "--hidden", "x"]) == 2
    shown = capsys.readouterr().err
    assert "--port" in shown
    assert "--hidden" in shown
    assert main(["live", "nothing.csv"]) == 2
    assert main(["live", "xor", "--validation", "file.csv"]) == 2
    assert main(["live", "xor", "--hidden", "9999"]) == 2
    assert main(["live", "xor", "--hosts", "x"]) == 2
    capsys.readouterr()
    for missing in ("uvicorn", "wsproto", "starlette"):
        with monkeypatch.context() as patch:
            for name in [m for m in sys.modules if m.partition(".")[0] == missing]:
                patch.delitem(sys.modules, name)
            patch.delitem(sys.modules, "nnbackend.live_page.app", raising=False)
            patch.setitem(sys.modules, missing, None)
            assert main(["live", "xor", "--device", "numpy", "--no-browser"]) == 2
            assert 'pip install "nnbackend[live]"' in capsys.readouterr().err


def test_live_checks_what_it_is_given() -> None:
    net = nn.Network([2, 3, 2], loss="cross_entropy", device="numpy")
    for x, y in (([1.0, 2.0], [0, 1]), ([["a", "b"]], [0]), (np.zeros((0, 2)), [])):
        with pytest.raises(nn.NNBackendError):
            Session(source_of(net, x, y), fixed=net)
    with pytest.raises(ArgumentError, match=r"model\.network"):
        source_of(nn.Model(net), [[1.0, 2.0]], [0])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="no option 'hidden'"):
        options_of({"hidden": "3"})
    assert options_of({"batch_size": None, "learning_rate": 0.5}).settings.batch_size is None


def test_live_runs_until_it_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("wsproto")
    net = nn.Network([2, 3, 2], loss="cross_entropy", device="numpy")
    data = toy("xor", 40).data

    def stop() -> None:
        while "http://" not in (found := capsys.readouterr().out):
            time.sleep(0.1)
        shown.append(found)
        os.kill(os.getpid(), signal.SIGINT)

    shown: list[str] = []
    thread = threading.Thread(target=stop)
    thread.start()
    nn.live(net, data.x, data.y, open_browser=False, batch_size=10)
    thread.join(20)
    assert shown


def test_in_a_notebook_the_server_has_a_thread_of_its_own() -> None:
    class Server:
        should_exit = False
        thread = ""

        def run(self, sockets: list[Any]) -> None:
            self.thread = threading.current_thread().name

    async def cell() -> None:
        run_server(server, None)  # type: ignore[arg-type]

    server = Server()
    asyncio.run(cell())
    assert server.thread not in ("", threading.current_thread().name)
