"""The latents stage of several processes, ended from outside: nobody is left, nothing is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from pae_framework.launch.local import LocalLauncher
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.runs.directory import RunDirectory
from pae_framework.system.console import PlainConsole
from pae_framework.system.files import read_json

SHORT = (
    *("extractor=null", "sample=null", "evaluate=null", "latents.shard_size=3"),
    *(f"{part}.train.steps=1" for part in ("tokenizer.encoder", "tokenizer", "generator")),
    "generator.train.keep_steps=[]",
)
SECONDS = 120
"""Most that anything here may take on a busy machine."""
MAIN, OTHER, ALL = "rank 0", "rank 1", "all"
HALTING = """
import os, signal
from pae_framework.cli.app import main
from pae_framework.stages import latents

write, written = latents.write_shard, []

def write_and_halt(path, *tensors):
    write(path, *tensors)
    written.append(path)
    if len(written) == 2:
        os.killpg(0, signal.SIGSTOP)

latents.write_shard = write_and_halt
main()
"""
"""`pae` whose processes stand still once rank 0 has written two shards of latents."""


def run_until(folder: Path, stage: str) -> None:
    loaded = load_recipe(folder / "tiny.yaml", SHORT, load_registry())
    directory = RunDirectory.at(folder / "runs" / "tiny")
    LocalLauncher(PlainConsole(quiet=True)).run(loaded, directory, "pae run", until=stage)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """A folder with the tiny recipe, run up to its tokenizer."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "tiny.yaml").write_text(tiny_text, encoding="utf-8")
    run_until(folder, "tokenizer")
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, dict[str, Tensor]]:
    """The shards that one process writes in one go."""
    run_until(place, "latents")
    found = shards(place)
    shutil.rmtree((place / "runs" / "tiny" / "latents").resolve())
    return found


def shards(place: Path) -> dict[str, dict[str, Tensor]]:
    folder = place / "runs" / "tiny" / "latents"
    return {path.name: load_file(path) for path in folder.glob("latents_rank*")}


def processes() -> dict[int, tuple[int, str]]:
    """Every living process of the machine with its parent and its command.

    `-ww` keeps commands whole whatever `COLUMNS` is.
    """
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = (line.split(maxsplit=3) for line in listed.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[-1]) for row in rows if not row[2].startswith("Z")}


def descendants(ancestor: int) -> set[int]:
    living, found = processes(), {ancestor}
    while more := {pid for pid, (parent, _) in living.items() if parent in found} - found:
        found |= more
    return found - {ancestor}


def followers_of(main: int) -> list[int]:
    living = processes()
    return [
        pid for pid in descendants(main) if pid in living and "launch.follower" in living[pid][1]
    ]


def is_halted(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    assert not state.stdout.startswith("Z"), "the run has ended"
    return state.stdout.startswith("T")


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


CODES = {
    (signal.SIGUSR1, OTHER): 75,
    (signal.SIGTERM, ALL): 143,
    (signal.SIGHUP, MAIN): 129,
}
"""What the main process ends with. It does not know which signal another got."""


def ended_by(sent: signal.Signals, to: str, place: Path) -> tuple[int, str, set[int]]:
    """`pae run` with two processes, ended amid the latents: exit code, output, its processes.

    What all processes get, they get twice, as Slurm sends it.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", HALTING, "run", "tiny.yaml", *SHORT, "--processes", "2"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: is_halted(process.pid), "two shards were not written")
        others, (follower,) = descendants(process.pid), followers_of(process.pid)
        if to == ALL:
            os.killpg(process.pid, sent)
        else:
            os.kill(process.pid if to == MAIN else follower, sent)
        os.killpg(process.pid, signal.SIGCONT)
        if to == ALL:
            time.sleep(0.05)
            os.killpg(process.pid, sent)
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, output, others


@pytest.mark.skipif(shutil.which("ps") is None, reason="processes are listed by ps")
@pytest.mark.parametrize(
    ("sent", "to"),
    [
        (signal.SIGUSR1, OTHER),
        *(
            pytest.param(sent, to, marks=pytest.mark.slow)
            for sent, to in (
                (signal.SIGTERM, ALL),
                (signal.SIGHUP, MAIN),
                (signal.SIGKILL, MAIN),
                (signal.SIGKILL, OTHER),
            )
        ),
    ],
)
def test_no_process_remains_and_one_process_finishes(
    place: Path, undisturbed: dict[str, dict[str, Tensor]], sent: signal.Signals, to: str
) -> None:
    code, output, others = ended_by(sent, to, place)
    assert others
    wait_for(lambda: not others & processes().keys(), "processes outlive the run")
    folder = place / "runs" / "tiny" / "latents"
    left = {path: path.stat().st_mtime_ns for path in folder.glob("latents_rank*")}
    assert 2 <= len(left) < len(undisturbed)
    if sent != signal.SIGKILL:
        assert code == CODES[sent, to]
        assert f"stopped with {len(left)} of {len(undisturbed)} shards" in " ".join(output.split())
        assert read_json(folder / "stage.json")["state"] == "stopped"
        assert not list(folder.glob(".*.new"))  # those under way were finished
    elif to == OTHER:
        assert code == 1
        assert re.search(r"rank 1 .*signal 9", " ".join(output.split()))
        assert read_json(folder / "stage.json")["state"] == "failed"
    run_until(place, "latents")
    assert all(path.stat().st_mtime_ns == written for path, written in left.items())
    assert not list(folder.glob(".*.new"))
    found = shards(place)
    assert found.keys() == undisturbed.keys()
    for name, tensors in undisturbed.items():
        assert all(same_values(tensors[key], found[name][key]) for key in tensors)
    shutil.rmtree(folder.resolve())


def same_values(one: Tensor, two: Tensor) -> bool:
    return one.dtype == two.dtype and bool((one == two).all())
