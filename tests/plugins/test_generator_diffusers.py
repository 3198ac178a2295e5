"""Generators as Diffusers models and pipelines: written, read by Diffusers, and sampled alike."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoModel, FlowMatchEulerDiscreteScheduler
from layouts.tiny_generator import golden, weights

from pae_framework.config import LatentShape
from pae_framework.errors import CheckpointError, UsageError
from pae_framework.flow.flow_settings import Guidance, SampleSettings
from pae_framework.flow.path import time_grid
from pae_framework.flow.sampling import SampleNoise, sample_latents
from pae_generators.config import LightningDiTConfig
from pae_generators.config_dh import DiTDHConfig
from pae_generators.diffusers_model import DiTDHModel, LightningDiTModel, diffusers_model
from pae_generators.diffusers_pipeline import LatentFlowPipeline, save_pipeline
from pae_generators.dit_dh import DiTDH
from pae_generators.lightningdit import LightningDiT

LATENT = LatentShape(4, 4)
CLASSES = 10
MEAN = torch.tensor([0.1, -2.0, 3.0, 1e-3]).view(1, 4, 1, 1)
STD = torch.tensor([0.3, 1.7, 2.0, 5.0]).view(1, 4, 1, 1)
SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 1}
SMALL_DH = {
    **{"depth": 2, "width": 16, "heads": 2},
    **{"head_depth": 1, "head_width": 24, "head_heads": 3},
}


def trained(model):
    """A network whose zeroed parts are random: its velocity depends on all it is given.

    Not by much: in a wild field trajectories part by rounding alone.
    """
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=random)
    return model.eval()


def lightningdit(**changes):
    return trained(LightningDiT(LightningDiTConfig(**{**SMALL, **changes}), LATENT, CLASSES))


def dit_dh(**changes):
    return trained(DiTDH(DiTDHConfig(**{**SMALL_DH, **changes}), LATENT, CLASSES))


NETWORKS = {
    "lightningdit": lightningdit,
    "every flag": lambda: lightningdit(
        **{"qk_norm": True, "mlp": "gelu", "norm": "layer", "rope": False, "adaln_shift": False},
        **{"absolute_positions": False, "learn_sigma": True, "time_embedding": "fourier"},
        **{"time": "data_first", "patch": 2, "channels": 4, "side": 4, "classes": 10},
    ),
    "unconditional": lambda: lightningdit(classes=0),
    "dit_dh": dit_dh,
    "dit_dh in our time": lambda: dit_dh(time="noise_first", patch=2),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    return NETWORKS[request.param]()


def loaded(folder: Path) -> LatentFlowPipeline:
    pipeline = LatentFlowPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pipeline_of(model, folder: Path, shift: float = 1.0) -> LatentFlowPipeline:
    model.save_diffusers(folder, MEAN, STD, shift)
    return loaded(folder)


# --- the model ------------------------------------------------------------------------------------


def test_diffusers_loads_the_same_weights(tmp_path, network) -> None:
    network.save_diffusers(tmp_path, MEAN, STD, 0.3)
    model = AutoModel.from_pretrained(str(tmp_path), subfolder="transformer")
    assert type(model) is {LightningDiT: LightningDiTModel, DiTDH: DiTDHModel}[type(network)]
    assert not model.training
    expected, found = network.state_dict(), model.state_dict()
    assert found.keys() == expected.keys() == network.to_official().keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (model.latent, model.num_classes) == (LATENT, CLASSES)
    assert model.settings == network.settings
    assert torch.tensor(model.config.latents_mean).equal(MEAN.flatten())
    assert torch.tensor(model.config.latents_std).equal(STD.flatten())
    # and once more, by Diffusers alone
    model.save_pretrained(tmp_path / "again")
    again = type(model).from_pretrained(tmp_path / "again")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in expected.items())


def test_files_contain_every_tensor_that_diffusers_does_not_initialize(network) -> None:
    """Under ``low_cpu_mem_usage`` models are made without numbers; files must bring all of them."""
    model = diffusers_model(network, MEAN, STD)
    held = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    assert held == model.state_dict().keys()
    assert not any(value.is_meta for value in model.state_dict().values())


def test_the_velocity_follows_diffusers_time(network) -> None:
    """timestep = 1000 sigma, sigma = 1 - t, and dx/dsigma = -dx/dt."""
    model = diffusers_model(network, MEAN, STD)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 4, 4, generator=random)
    t, y = torch.tensor([0.0, 0.3, 1.0]), torch.tensor([0, 9, CLASSES])
    with torch.no_grad():
        ours = network(x, t, y)
        theirs = model(x, 1000 * (1 - t), y).sample
        (as_tuple,) = model(x, 1000 * (1 - t), y, return_dict=False)
        one_time = model(x, torch.tensor(700.0), y).sample
        without = model(x, 1000 * (1 - t)).sample
    assert ours.std() > 0.1
    torch.testing.assert_close(theirs, -ours, rtol=1e-4, atol=1e-5)
    assert torch.equal(as_tuple, theirs)
    torch.testing.assert_close(one_time[1], theirs[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(without[2], theirs[2], rtol=1e-4, atol=1e-5)  # the null label


def test_an_exported_network_uses_sdpa() -> None:
    network = lightningdit()
    network.settings = network.settings.model_copy(update={"attention": "xformers"})
    assert diffusers_model(network, MEAN, STD).config.network["attention"] == "sdpa"


# --- the scheduler --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_the_scheduler_has_our_time_grid(tmp_path, shift, steps) -> None:
    """t' = s t / (1 + (s-1) t) and sigma' = a sigma / (1 + (a-1) sigma) agree for a = 1 / s."""
    lightningdit().save_diffusers(tmp_path, MEAN, STD, shift)
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    # As pipelines of Diffusers give noise levels; sigma = 0 comes of itself.
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    torch.testing.assert_close(1 - scheduler.sigmas, time_grid(steps, shift), rtol=0, atol=1e-6)


# --- the pipeline ---------------------------------------------------------------------------------

SAMPLING = {
    "plain": SampleSettings(steps=7),
    "shifted": SampleSettings(steps=7, shift=0.3),
    "guided": SampleSettings(steps=7, shift=0.3, guidance=Guidance(scale=2.5)),
    "three channels": SampleSettings(steps=5, guidance=Guidance(scale=4, channels="first_three")),
    # 0.3 and 0.7 are points of the grid, on which guidance is on
    "interval": SampleSettings(steps=10, guidance=Guidance(scale=4, interval=(0.3, 0.7))),
    "short of the data": SampleSettings(steps=7, shift=0.5, end=0.9),
}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        *((lightningdit, named) for named in SAMPLING),
        # The pipeline does not know which network it has.
        *(
            pytest.param(dit_dh, named, marks=() if named == "interval" else pytest.mark.slow)
            for named in SAMPLING
        ),
    ],
)
def test_the_pipeline_samples_what_our_sampler_samples(tmp_path, make, named) -> None:
    """From the same noise; 1e-4 for latents of deviation 1."""
    network, settings = make(), SAMPLING[named]
    labels, indices = torch.tensor([3, 7, 3]), torch.arange(3)
    ours = sample_latents(network, labels, indices, settings, 0, LATENT)
    guidance = settings.guidance
    theirs = pipeline_of(network, tmp_path, settings.shift)(
        labels.tolist(),
        num_inference_steps=settings.steps,
        guidance_scale=guidance.scale,
        guidance_interval=guidance.interval,
        guidance_channels=3 if guidance.channels == "first_three" else None,
        end=settings.end,
        latents=SampleNoise(indices, 0, LATENT).draw(),
    ).latents
    assert ours.isfinite().all()
    torch.testing.assert_close((theirs - MEAN) / STD, ours, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.3])
@pytest.mark.parametrize("named", ["unguided", "guided"])
def test_the_pipeline_samples_what_the_official_code_samples(tmp_path, shift, named) -> None:
    """Trajectories of LightningDiT's own code, 11 points; its 0.0 is no shift."""
    given = golden()
    config = LightningDiTConfig(width=32, depth=2, heads=4, patch=1)
    model = LightningDiT(config, LATENT, CLASSES)
    model.load_state_dict(model.from_official(weights()))
    save_pipeline(model, tmp_path, torch.zeros(4), torch.ones(4), shift or 1.0)
    guidance = {"guidance_scale": 4.0, "guidance_interval": (0.3, 1.0), "guidance_channels": 3}
    (latents,) = loaded(tmp_path)(
        given["in.labels"].tolist(),
        num_inference_steps=10,
        latents=given["in.z"],
        return_dict=False,
        **(guidance if named == "guided" else {}),
    )
    expected = given[f"out.euler11_shift{shift}_{named}"]
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-4)


def test_noise_comes_from_the_generator(tmp_path) -> None:
    pipeline = pipeline_of(lightningdit(), tmp_path)

    def drawn(seed: int, **options):
        random = torch.Generator().manual_seed(seed)
        return pipeline([1, 2], num_inference_steps=2, generator=random, **options).latents

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_the_pipeline_samples_in_half_precision_with_float32_latents(tmp_path) -> None:
    pipeline, noise = pipeline_of(lightningdit(), tmp_path), SampleNoise([0, 1], 0, LATENT).draw()
    exact = pipeline([1, 2], num_inference_steps=4, latents=noise).latents
    half = pipeline.to(torch.bfloat16)([1, 2], num_inference_steps=4, latents=noise).latents
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert (half - exact).norm() < 0.05 * exact.norm()


def test_invalid_arguments_of_the_pipeline_are_rejected(tmp_path) -> None:
    pipeline = pipeline_of(lightningdit(), tmp_path / "labels")
    with pytest.raises(UsageError, match=r"class_labels.*\b10\b.*\b0 to 9\b"):
        pipeline([1, 10])
    with pytest.raises(UsageError, match=r"latents .*\(1, 4, 4, 4\).*\(2, 4, 4, 4\)"):
        pipeline([1, 2], latents=torch.zeros(1, 4, 4, 4))
    pipeline = pipeline_of(lightningdit(classes=0), tmp_path / "none")
    with pytest.raises(UsageError, match="guidance_scale=1"):
        pipeline([1], guidance_scale=2.0)


# --- where there is no Diffusers ------------------------------------------------------------------


def test_without_diffusers_the_error_names_the_package_to_install(tmp_path, monkeypatch) -> None:
    for name in list(sys.modules):
        if name.startswith("pae_generators.diffusers_"):
            monkeypatch.delitem(sys.modules, name)
        if name.partition(".")[0] == "diffusers":
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pae-framework\[diffusers\]"):
        lightningdit().save_diffusers(tmp_path / "folder", MEAN, STD, 1.0)
    assert not (tmp_path / "folder").exists()


def test_other_generators_have_no_diffusers_form(tmp_path) -> None:
    class Other(LightningDiT):
        """Computes something else from the same weights."""

    other = Other(LightningDiTConfig(**SMALL), LATENT, CLASSES)
    with pytest.raises(CheckpointError, match=r"\bOther\b"):
        other.save_diffusers(tmp_path / "folder", MEAN, STD, 1.0)


def test_generators_do_not_import_diffusers() -> None:
    code = "import json, sys, pae_generators.dit_dh, pae_generators.lightningdit as _;"
    code += "print(json.dumps([m for m in sys.modules if m.partition('.')[0] == 'diffusers']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
