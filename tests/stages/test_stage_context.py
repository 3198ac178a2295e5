"""The device of a stage, and what its record says about it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pae_framework.cli.arguments import finished_context
from pae_framework.config import LatentShape
from pae_framework.errors import UsageError
from pae_framework.execution.context import StageContext, configure_torch, pick_device
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.plugins import load_registry
from pae_framework.recipe.models import RuntimeSettings
from pae_framework.runs.opened import open_run
from pae_framework.sampling.sampler import Sampler
from pae_framework.system.console import PlainConsole


@pytest.fixture(autouse=True)
def flags():
    """Restore torch's flags."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def context(runtime: RuntimeSettings) -> StageContext:
    recipe = SimpleNamespace(runtime=runtime)
    return StageContext(recipe, None, None, None, {}, None, None)


def test_without_a_gpu_asking_for_one_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError) as refused:
        pick_device(RuntimeSettings(device="cuda"))
    for fact in ("runtime.device", "runtime.device=cpu", "runtime.device=auto"):
        assert fact in str(refused.value)
    assert pick_device(RuntimeSettings(device="auto")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (4, ["cuda", "cuda:1", "cuda:2", "cuda:3"]),  # --gres=gpu:4: each sees all of its node
        (1, ["cuda", "cuda:0", "cuda:0", "cuda:0"]),  # --gpus-per-task=1: each sees its own
        (0, ["cpu", "cpu", "cpu", "cpu"]),
    ],
)
def test_each_process_of_a_machine_takes_another_gpu(monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    chosen = [pick_device(RuntimeSettings(device="auto"), local_rank) for local_rank in range(4)]
    assert [str(device) for device in chosen] == expected


@pytest.mark.parametrize("tf32", [False, True])
def test_torch_is_configured_as_the_recipe_asks(tf32):
    threads = torch.get_num_threads()
    try:
        configure_torch(RuntimeSettings(threads=2, tf32=tf32))
        assert torch.get_num_threads() == 2
        configure_torch(RuntimeSettings(tf32=tf32))  # no number: as it is
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.parametrize("tf32", [False, True])
def test_reading_the_device_changes_nothing(monkeypatch, tf32):
    configure_torch(RuntimeSettings(tf32=not tf32))
    threads = torch.get_num_threads()
    asked = RuntimeSettings(device="cpu", tf32=tf32, threads=threads + 1)
    assert context(asked).device == torch.device("cpu")
    assert torch.get_num_threads() == threads
    assert torch.backends.cuda.matmul.allow_tf32 is not tf32


@pytest.mark.parametrize("tf32", [False, True])
def test_the_record_says_whether_products_are_rounded(monkeypatch, tf32):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    found = context(RuntimeSettings(device="cuda", tf32=tf32)).machine
    assert (found["device"], found["tf32"]) == ("a GPU", tf32)


def test_a_cpu_rounds_nothing():
    assert context(RuntimeSettings(device="cpu", tf32=True)).machine["tf32"] is False


@pytest.mark.parametrize("tf32", [False, True])
def test_so_does_the_protocol_of_sampled_images(tf32):
    tokenizer = SimpleNamespace(latent=LatentShape(4, 4))
    sampler = Sampler(None, tokenizer, None, tf32=tf32)
    assert sampler.describe(SampleSettings())["tf32"] is tf32


def test_only_commands_that_read_a_finished_run_configure_torch():
    run = Path(__file__).parents[1] / "guard" / "old_run" / "finished"
    opened = open_run(run, load_registry())
    asked = opened.loaded.recipe.runtime.tf32
    torch.backends.cuda.matmul.allow_tf32 = not asked
    StageContext.of_finished_run(opened, "generator", PlainConsole(quiet=True))
    assert torch.backends.cuda.matmul.allow_tf32 is not asked
    finished_context(run, "generator")
    assert torch.backends.cuda.matmul.allow_tf32 is asked
