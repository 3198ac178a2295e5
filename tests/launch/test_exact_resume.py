"""Whatever happens to a killed run before it goes on, it ends as the undisturbed one.

Damaged checkpoints, a moved folder, other times, a full disk, a read-only folder, lost files, and
another process in the same folder.
"""

from __future__ import annotations

import os
import platform
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from interrupted_chain import OTHERS, TRAINED, Chain, at_weights_of, refused
from interrupter import FILLER, FULL, Interruption
from PIL import Image
from quickstart_stages import QUICKSTART_STAGES

DAY = 24 * 3600.0


# --- the newest checkpoint ------------------------------------------------------------------------


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size)])


DAMAGE: dict[str, Callable[[Path, random.Random], object]] = {
    "flipped": flip,
    "cut": cut,
    "emptied": lambda path, rng: path.write_bytes(b""),
    "deleted": lambda path, rng: path.unlink(),
    "swapped": lambda path, rng: shutil.copy(path.parent / "state.json", path),
    "without folder": lambda path, rng: shutil.rmtree(path.parent),
}
QUICK, SLOW = ("flipped", "cut", "without folder"), pytest.mark.slow


@pytest.mark.parametrize(
    "kind",
    [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in DAMAGE],
)
def test_a_damaged_newest_checkpoint_of_each_training(chain: Chain, kind: str) -> None:
    """The training goes on from the one before it; every kind of its files is damaged."""
    run, rng = chain.folder / f"damaged {kind}", random.Random(kind)
    for stage in TRAINED:
        assert chain.pae_run(run, at_weights_of(stage)).code == -signal.SIGKILL
        newest = max((run / stage / "checkpoints").iterdir())
        file = rng.choice([path for path in sorted(newest.iterdir()) if path.name != "state.json"])
        DAMAGE[kind](file, rng)
    ended = chain.finished_as_undisturbed(run)
    assert ended.output.count("resumes") == 1


# --- another place, another time ------------------------------------------------------------------


def test_a_run_that_is_moved_between_two_kills(chain: Chain) -> None:
    """Also to another depth; nothing that is done is done again."""
    rng, places = random.Random(1), ("here", "there/deep/down", "a name with späces", "last")
    for place, after, stage in zip(places, (*places[1:], None), ("encoder", *OTHERS), strict=False):
        chain.killed_in(place, stage, rng)
        if after:
            (chain.folder / after).parent.mkdir(parents=True, exist_ok=True)
            (chain.folder / place).rename(chain.folder / after)
    ended = chain.finished_as_undisturbed(places[-1])
    assert ended.output.count("cached") == QUICKSTART_STAGES.index("evaluate")


@pytest.mark.slow
def test_a_clock_that_jumps_between_two_kills(chain: Chain) -> None:
    """Forwards and backwards, by up to years; the times of all files change too."""
    run, rng = chain.folder / "clock", random.Random(2)
    for stage in ("extractor", "tokenizer", "latents", "generator", "sample"):
        shift = rng.choice((-1, 1)) * rng.choice((3600.0, DAY, 3000 * DAY))
        moment = rng.randint(1, chain.operations[stage])
        at = Interruption({moment: "KILL"}, on=f"/stages/{stage}-", clock=shift)
        assert chain.pae_run(run, at).code == -signal.SIGKILL
        for path in run.rglob("*"):
            then = time.time() + rng.uniform(-3000, 3000) * DAY
            os.utime(path, (then, then), follow_symlinks=False)
    ended = chain.pae_run(run, Interruption(clock=-20 * 365 * DAY))
    assert ended.code == 0, ended.output
    assert ended.output.count("cached") == QUICKSTART_STAGES.index("sample")
    chain.assert_as_undisturbed(run)


# --- lost files -----------------------------------------------------------------------------------

LOST = {
    "refine": "encoder/encoder.safetensors",
    "tokenizer": "refine/weights.safetensors",
    "latents": "tokenizer/tokenizer.safetensors",
    "generator": "latents/latents_rank00_shard002.safetensors",
    "sample": "generator/weights-step000003.safetensors",
    "evaluate": "sample/samples-step000005-euler002.npz",
    "report": "evaluate/results.json",
}
"""Stage that is killed -> a file that it reads, which is lost before the stage goes on."""


def test_a_file_that_is_lost_between_two_kills_is_named_and_can_be_restored(chain: Chain) -> None:
    run, rng = chain.folder / "lost", random.Random(3)
    for stage, file in LOST.items():
        chain.killed_in(run, stage, rng)
        path = (run / file).resolve()
        path.rename(chain.folder / "kept")
        refused(chain.pae_run(run), path.name, "is missing", "--again")
        (chain.folder / "kept").rename(path)
    chain.finished_as_undisturbed(run)


@pytest.fixture
def images(chain: Chain) -> Chain:
    """The chain on a folder of images, ``folder / "data"``, with its own undisturbed run."""
    rng, data = np.random.default_rng(0), chain.folder / "data"
    for number in range(30):
        path = data / ("train", "test")[number % 3 == 0] / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    splits = [
        f"data.{split}={{use: image_folder, folder: {data}, split: {split}}}"
        for split in ("train", "test")
    ]
    command = (*chain.command, *splits, "evaluate.manifold.ssc=false", "evaluate.manifold.images=8")
    found = replace(chain, command=command, run=chain.folder / "of images")
    assert found.pae_run(found.run).code == 0
    return found


@pytest.mark.slow
def test_images_that_are_lost_between_two_kills_are_named_and_can_be_restored(
    images: Chain,
) -> None:
    run, data = images.folder / "lost images", images.folder / "data"
    images.killed_in(run, "tokenizer", random.Random(5))
    data.rename(images.folder / "kept")
    refused(images.pae_run(run), data / "train", data / "test", "no such folder")
    (images.folder / "kept").rename(data)
    image = data / "train" / "a" / "4.png"
    image.rename(images.folder / "4.png")
    ended = images.pae_run(run, Interruption({9: "KILL"}, on="/stages/encoder-"))
    assert "deleted: a/4.png" in ended.output
    (images.folder / "4.png").rename(image)
    assert images.finished_as_undisturbed(run).output.count("cached") == 3


# --- a disk without room --------------------------------------------------------------------------


@contextmanager
def mounted(*words: str | Path) -> Iterator[None]:
    """Mount something while in the block."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(words[-1])], check=True)


FULL_AT = (
    *(rf"/{name}" for name in (r"\.run\.json", r"\.resolved\.yaml", r"\.environment\.json")),
    *(r"/extractor-.*/\.stage\.json", "/extractor-.*/metrics.jsonl", "/extractor-.*/checkpoints$"),
    *("/encoder-.*/step-00000003.new/.model", "/refine-.*/step-00000004.new/.state.json"),
    *("/tokenizer-.*/step-00000004.new/.opponent_optimizer", r"/tokenizer-.*/\.weights"),
    *(r"/tokenizer-.*/\.tokenizer", "/latents-.*shard001", r"/latents-.*/\.latents_stats\.pt"),
    *(
        "/generator-.*/tensorboard",
        "/generator-.*/.weights-step000003",
        "/step-00000005.new/.ema",
    ),
    *("/sample-.*/identity.txt", "/sample-.*npy", r"/sample-.*npz", "/sample-.*sets.json"),
    *("/evaluate-.*metrics.json", "/evaluate-.*/.results.json", "/report-.*html"),
)
"""Paths of files; the disk is full from the first operation on them."""


@pytest.mark.parametrize(
    "part", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_a_disk_that_is_full_for_a_while(chain: Chain, part: int) -> None:
    """One error says so, each time; with room again, the run goes on."""
    place = chain.folder / f"disk{part}"
    place.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=64m", "pae-test", place):
        for path in FULL_AT[part::3]:
            ended = chain.pae_run(place / "run", Interruption({1: FULL}, on=path))
            assert (place / FILLER).is_file(), f"{path}: {ended.output}"
            assert ended.code != 0, path
            refused(ended, "disk is full")
            (place / FILLER).unlink()
        chain.finished_as_undisturbed(place / "run")


def test_a_folder_that_is_read_only_for_a_while(chain: Chain) -> None:
    run = chain.folder / "read-only"
    chain.killed_in(run, "generator", random.Random(4))
    before = {path: path.lstat().st_mtime_ns for path in run.rglob("*")}
    with mounted("--bind", run, run):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(run)], check=True)
        refused(chain.pae_run(run), run, "read-only")
    assert {path: path.lstat().st_mtime_ns for path in run.rglob("*")} == before
    chain.finished_as_undisturbed(run)


# --- two processes --------------------------------------------------------------------------------


def wait_for_state(pid: int, state: str) -> None:
    """Until the system says so of the process: T for stopped."""
    end = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != state:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_second_process_in_the_same_folder_is_refused(chain: Chain) -> None:
    run = chain.folder / "two"
    paused = Interruption({chain.operations["tokenizer"] // 2: "STOP"}, on="/stages/tokenizer-")
    first = chain.interrupter.start(run, paused, *chain.command)
    try:
        wait_for_state(first.pid, "T")
        before = {path: path.lstat().st_mtime_ns for path in run.rglob("*")}
        holder = f"process {first.pid} of {platform.node()}"
        refused(chain.pae_run(run), holder, " ".join(chain.command[:1]), run)
        assert {path: path.lstat().st_mtime_ns for path in run.rglob("*")} == before
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert chain.interrupter.finish(first).code == 0
    chain.assert_as_undisturbed(run)


def test_a_second_run_waits_for_a_stage_that_both_need(chain: Chain) -> None:
    """It names the process that works on it, and uses what that leaves, also if it is killed."""
    run, other = chain.folder / "first", chain.folder / "second"
    paused = Interruption({chain.operations["latents"] // 2: "STOP"}, on="/stages/latents-")
    first = chain.interrupter.start(run, paused, *chain.command)
    wait_for_state(first.pid, "T")
    words = (*chain.command, "--stages", str(run / "stages"))
    second = chain.interrupter.start(other, Interruption(), *words)
    waiting = f"latents waiting for process {first.pid} of {platform.node()}"
    end = time.monotonic() + 60
    while waiting not in " ".join(second.log.read_text(encoding="utf-8").split()):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    assert chain.interrupter.finish(first).code == -signal.SIGKILL
    ended = chain.interrupter.finish(second)
    assert ended.code == 0, ended.output
    assert ended.output.count("cached") == QUICKSTART_STAGES.index("latents")
    chain.assert_as_undisturbed(other)
    chain.finished_as_undisturbed(run)
