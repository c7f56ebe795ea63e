"""Two hosts on one Linux machine: network namespaces, joined by a link with a delay and a rate.

A process passes packets between two TUN devices, each late by the delay and one after another at
the rate, in each direction. So the kernel needs no netem. It needs root, `ip` and /dev/net/tun.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PACKET = 65_000  # bytes: large packets, so that a Python process keeps up
PORT = 7701
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",  # the relay needs a core too
}  # fmt: skip


@cache
def lacking() -> str:
    """Return why the hosts cannot be made; "" if they can."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    for program in ("ip", "unshare", "hostname"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        with TwoHosts(0.0, 1e9):
            return ""
    except (OSError, RuntimeError) as error:
        return f"network namespaces cannot be made here: {error}"


class TwoHosts:
    """The hosts, for a `with` block.

    delay: seconds in each direction.  rate: bytes a second in each direction.
    """

    def __init__(self, delay: float, rate: float) -> None:
        self.delay, self.rate = delay, rate
        self.names = tuple(f"nn{os.getpid()}{end}" for end in "ab")

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="hosts"))
        self.relay: subprocess.Popen[str] | None = None
        try:
            for name in self.names:
                _ip("netns", "add", name)
            words = [str(word) for word in (*self.names, self.delay, self.rate)]
            command = [sys.executable, __file__, *words]
            self.relay = subprocess.Popen(command, stdout=-1, stderr=-1, text=True)
            assert self.relay.stdout is not None
            if self.relay.stdout.readline() != "ready\n":
                raise RuntimeError(self.relay.communicate()[1].strip()[-200:])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.relay is not None:
            self.relay.kill()
            self.relay.communicate()
        for name in self.names:
            inside = subprocess.run(["ip", "netns", "pids", name], capture_output=True, check=False)
            for pid in inside.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def on(self, host: int, command: str) -> list[str]:
        """Return the words that run a shell command on host 0 or 1."""
        named = f"hostname nn-host-{host}; {command}"
        return ["ip", "netns", "exec", self.names[host], "unshare", "--uts", "sh", "-c", named]

    def mpiexec(self, mpiexec: str) -> list[str]:
        """Return the words, to be followed by a program, that run a rank of it on each host.

        mpiexec: that of Open MPI 5.
        """
        agent, folder = self.folder / "agent", self.folder / "host-1"
        folder.mkdir(exist_ok=True)
        start = " ".join(self.on(1, "")[:-1])  # instead of ssh; the first argument is the host
        agent.write_text(
            f'#!/bin/sh\nshift\nexec {start} "hostname nn-host-1; TMPDIR={folder} $*"\n'
        )
        agent.chmod(0o755)
        hosts = ",".join(f"{address}:1" for address in ADDRESSES)
        words = (
            f"--prtemca plm_ssh_agent {agent} --host {hosts} -n 2 --bind-to none --mca pml ob1 "
            f"--mca btl tcp,self --mca btl_tcp_if_include {ADDRESSES[0]}/24"
        )
        return [*self.on(0, f'exec {mpiexec} {words} "$@"'), "sh"]

    def measured(self) -> tuple[float, float]:
        """Return the latency in seconds, and the bandwidth in bytes a second of each direction.

        By TCP sockets; both directions are in use at once, as in an exchange.
        """
        ends = [
            subprocess.Popen(
                self.on(host, f"exec {sys.executable} {__file__} {end}"), stdout=-1, text=True
            )
            for host, end in ((1, "second"), (0, "first"))
        ]
        out = [end.communicate(timeout=60)[0] for end in ends][1]
        latency, bandwidth = out.split()
        return float(latency), float(bandwidth)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _tun(name: str, namespace: str, address: str) -> int:
    """Return the file of a TUN device in a namespace."""
    import fcntl

    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    set_device, tun_without_header = 0x400454CA, 0x1001
    fcntl.ioctl(device, set_device, struct.pack("16sH22x", name.encode(), tun_without_header))
    _ip("link", "set", name, "netns", namespace)
    _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", name)
    _ip("-n", namespace, "link", "set", name, "mtu", str(PACKET), "up")
    _ip("-n", namespace, "link", "set", "lo", "up")
    return device


def relay(names: list[str], delay: float, rate: float) -> None:
    """Pass packets until the process is killed."""
    devices = [
        _tun(f"{name}t", name, address) for name, address in zip(names, ADDRESSES, strict=True)
    ]
    queues = [deque[tuple[float, bytes]](), deque[tuple[float, bytes]]()]
    free = [0.0, 0.0]  # when each direction has sent its packets
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))  # before ranks, which wait busily
    print("ready", flush=True)
    while True:
        due = min((queue[0][0] for queue in queues if queue), default=None)
        wait = None if due is None else max(0.0, due - time.perf_counter() - 100e-6)
        for device in select.select(devices, [], [], wait)[0]:  # the last 100 µs busily
            end = devices.index(device)
            packet = os.read(device, 2 * PACKET)
            free[end] = max(free[end], time.perf_counter()) + len(packet) / rate
            queues[end].append((free[end] + delay, packet))
        now = time.perf_counter()
        for queue, other in zip(queues, devices[::-1], strict=True):
            while queue and queue[0][0] <= now:
                os.write(other, queue.popleft()[1])


ROUNDS, BYTES = 100, 4_000_000


def exchange(is_first: bool) -> None:
    """Exchange single bytes, then many in both directions at once; the first end prints."""
    if is_first:
        peer = _connected()
    else:
        with socket.create_server((ADDRESSES[1], PORT)) as server:
            peer = server.accept()[0]
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    trips, transfers = [], []
    with peer:
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            if is_first:
                peer.sendall(b"x")
            peer.recv(1)
            if not is_first:
                peer.sendall(b"x")
            trips.append(time.perf_counter() - begin)
        for _ in range(5):
            begin = time.perf_counter()
            sender = threading.Thread(target=peer.sendall, args=(bytes(BYTES),))
            sender.start()
            left = BYTES
            while left:
                left -= len(peer.recv(min(left, 1 << 20)))
            sender.join()
            transfers.append(time.perf_counter() - begin)
    latency = statistics.median(trips) / 2
    if is_first:
        print(latency, BYTES / (statistics.median(transfers) - latency), flush=True)


def _connected() -> socket.socket:
    for _ in range(200):  # the other end may not listen yet
        try:
            return socket.create_connection((ADDRESSES[1], PORT))
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("the other end does not listen")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        exchange(sys.argv[1] == "first")
    else:
        relay(sys.argv[1:3], float(sys.argv[3]), float(sys.argv[4]))
