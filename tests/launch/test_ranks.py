"""How many processes a run has, and who hears of an impossible number."""

from __future__ import annotations

import socket
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from pae_framework.distributed.link import Link
from pae_framework.errors import UsageError
from pae_framework.launch.ranks import ranks_for
from pae_framework.launch.team import order_key
from pae_framework.system.console import PlainConsole


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of rank 0, which this process is for its launcher."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
    place = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}
    for name, value in {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    return port


def test_processes_of_a_launcher_end_if_more_are_asked_for(port: int) -> None:
    orders = []

    def follow() -> None:
        store = dist.TCPStore("127.0.0.1", port, 2, False, timeout=timedelta(seconds=20))
        link = Link(store, 1, 2)
        orders.append(link.wait(order_key(1)))
        link.leave()

    other = threading.Thread(target=follow)
    other.start()
    with pytest.raises(UsageError, match="--processes"), ranks_for("2", PlainConsole(quiet=True)):
        pass
    other.join()
    assert orders == [None]
