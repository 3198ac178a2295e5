"""Where a stage works, and what its record says of that."""

from types import SimpleNamespace

import pytest
import torch

from pae_framework.config import LatentShape
from pae_framework.errors import UsageError
from pae_framework.execution.context import StageContext, pick_device
from pae_framework.flow.flow_settings import SampleSettings
from pae_framework.recipe.models import RuntimeSettings
from pae_framework.sampling.sampler import Sampler


@pytest.fixture(autouse=True)
def flags():
    """What torch is told here is taken back."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def machine(runtime: RuntimeSettings) -> dict:
    recipe = SimpleNamespace(runtime=runtime)
    return StageContext(recipe, None, None, None, {}, None, None).machine


def test_without_a_gpu_asking_for_one_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"asks for a GPU.*say `runtime.device=cpu` or `auto`"):
        pick_device(RuntimeSettings(device="cuda"))
    assert pick_device(RuntimeSettings(device="auto")) == torch.device("cpu")


@pytest.mark.parametrize("tf32", [False, True])
def test_the_record_says_whether_products_were_rounded(monkeypatch, tf32):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    found = machine(RuntimeSettings(device="cuda", tf32=tf32))
    assert (found["device"], found["tf32"]) == ("a GPU", tf32)
    assert torch.backends.cuda.matmul.allow_tf32 is tf32


def test_a_cpu_rounds_nothing():
    assert machine(RuntimeSettings(device="cpu", tf32=True))["tf32"] is False


@pytest.mark.parametrize("tf32", [False, True])
def test_so_does_the_protocol_of_what_is_drawn(tf32):
    tokenizer = SimpleNamespace(latent=LatentShape(4, 4))
    sampler = Sampler(None, tokenizer, None, tf32=tf32)
    assert sampler.describe(SampleSettings())["tf32"] is tf32
