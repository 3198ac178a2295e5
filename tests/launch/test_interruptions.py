"""A chain of all stages, killed and stopped again and again, ends as the undisturbed one."""

from __future__ import annotations

import os
import random
import re

import pytest
from interrupted_chain import STAGES, TRAINED, Chain, Draw, results
from interrupter import Interruption
from safetensors.torch import load_file

from pae_framework.system.files import read_json
from pae_framework.testing.pytest import run_process


def by(*names: str, group: bool = False) -> Draw:
    """Each of the signals, one operation after the other."""

    def draw(rng: random.Random, operations: int) -> Interruption:
        first = rng.randint(1, operations)
        return Interruption({first + n: name for n, name in enumerate(names)}, group=group)

    return draw


def at_any_moment(rng: random.Random, operations: int) -> Interruption:
    return Interruption(after=rng.uniform(0.0, 1.5))


KILLS = (by("KILL"), by("KILL"), at_any_moment)
STOPS = (
    *(by("TERM"), by("INT"), by("HUP"), by("USR1"), by("TERM", "TERM", "HUP", "TERM")),
    *(by("TERM", group=True), by("HUP", "TERM", group=True)),
)


def test_the_comparison_sees_all_kinds_of_results(chain: Chain):
    found = results(chain.run)
    last = "tokenizer/checkpoints/step-00000007"
    assert {
        *(f"{last}/{name}.safetensors" for name in ("model", "ema", "optimizer")),
        *(f"{last}/{name}.safetensors" for name in ("opponent", "opponent_optimizer")),
        *(f"{last}/state.json", "log of generator", "evaluate/results.json"),
        *("tokenizer/tokenizer.safetensors", "latents/latents_rank00_shard004.safetensors"),
        *("generator/weights-step000003.safetensors", "sample/samples-step000005-euler002.npz"),
        *("latents/latents_stats.pt", "state of report"),
    } <= found.keys()


def test_the_chain_has_adaptive_weights_and_batch_norm(chain: Chain):
    opponent = load_file(chain.run / "tokenizer/checkpoints/step-00000007/opponent.safetensors")
    assert any(name.endswith("running_mean") for name in opponent)
    assert "adversarial_weight" in results(chain.run)["log of tokenizer"][0]


# --- other processes ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["1", "2"])
def test_a_new_process_with_another_order_of_sets_ends_as_undisturbed(chain: Chain, seed: str):
    """The undisturbed run is a fork and has the hash seed of its server."""
    run = f"hash-seed-{seed}"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    words = ("-m", "pae_framework", *chain.command, "--run-dir", run)
    run_process(*words, cwd=chain.folder, timeout=500, env=environment).ok()
    chain.assert_as_undisturbed(run)


# --- kills ----------------------------------------------------------------------------------------

KILLED = {
    1: (*TRAINED, "latents", "evaluate"),
    2: (*TRAINED, "sample", "report"),
    3: (*TRAINED, "latents"),
}
"""Seeds of three chains, and the stages in which each is killed: twenty kills."""


@pytest.mark.parametrize("seed", KILLED)
def test_killed_in_its_stages_it_ends_as_undisturbed(chain: Chain, seed: int):
    rng = random.Random(seed)
    for stage in STAGES:
        if stage in KILLED[seed]:
            chain.killed_in(f"killed{seed}", stage, rng)
    chain.finished_as_undisturbed(f"killed{seed}")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_killed_in_every_stage_it_ends_as_undisturbed(chain: Chain, seed: int):
    """More than a hundred kills in all."""
    rng = random.Random(seed)
    for stage in STAGES:
        chain.killed_in(f"killed{seed}", stage, rng)
    chain.finished_as_undisturbed(f"killed{seed}")


# --- kills and stops ------------------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_again_and_again_it_ends_as_undisturbed(chain: Chain):
    ended = chain.interrupted("interrupted", 1, (*KILLS, *STOPS))
    assert len(ended) > 5
    chain.assert_as_undisturbed("interrupted")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "names", "code"),
    [
        (2, ("TERM", "TERM"), 143),
        (4, ("HUP", "TERM", "USR1"), 129),
        (6, ("INT", "TERM"), 130),
    ],
)
def test_signals_to_all_processes_amid_a_save_stop_after_it(
    chain: Chain, step: int, names: tuple[str, ...], code: int
):
    """The tokenizer has loader processes. Its checkpoints are of the steps 2, 4 and 6 of 7.

    The training goes on during a save, at most to the next checkpoint, which waits for it.
    """
    run = f"group{step}"
    at = dict(enumerate(names, start=1))
    amid = Interruption(at, on=rf"step-{step:08d}\.new/\.opponent\.safetensors", group=True)
    ended = chain.pae_run(run, amid)
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    found = re.search(r"stopped at step (\d) of 7", " ".join(ended.output.split()))
    assert found, ended.output
    stopped = int(found[1])
    assert step < stopped <= step + 2
    tokenizer = chain.folder / run / "tokenizer"
    record = read_json(tokenizer / "stage.json")
    assert (record["state"], record["progress"]["done"]) == ("stopped", stopped)
    saved = {path.name for path in (tokenizer / "checkpoints").iterdir()}
    assert saved == {f"step-{step:08d}", f"step-{stopped:08d}"}
    chain.finished_as_undisturbed(run)


@pytest.mark.slow
def test_after_a_hundred_interruptions_it_ends_as_undisturbed(chain: Chain):
    total = 0
    for seed in range(100):
        name = f"seed{seed}"
        total += len(chain.interrupted(name, seed, (*KILLS, *STOPS))) - 1
        chain.assert_as_undisturbed(name)
        if total >= 100:
            return
