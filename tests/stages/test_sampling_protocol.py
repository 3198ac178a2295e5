"""The recorded protocol of sampled images, and settings that `pae sample` rejects."""

import pytest

from pae_framework.config import LatentShape
from pae_framework.errors import UsageError
from pae_framework.flow.flow_settings import Guidance, SampleSettings, SdeSettings
from pae_framework.flow.sampling import EvaluationCount
from pae_framework.plugins import load_registry
from pae_framework.recipe.load import load_recipe
from pae_framework.sampling.sample_to_folder import sampling_settings
from pae_framework.sampling.sampler import describe


def test_the_published_guided_sampler():
    """As in tests/flow/test_integrate.py: 249 evaluations, 135 of them guided."""
    guidance = Guidance(scale=2.5, interval=(0.25, 1.0))
    settings = SampleSettings(steps=249, shift=0.4, guidance=guidance, seed=3)
    assert describe(settings) == {
        "solver": "euler",
        "steps": 249,
        "evaluations": 249,
        "guided_evaluations": 135,
        "shift": 0.4,
        "guidance": 2.5,
        "guidance_channels": "all",
        "guidance_interval": [0.25, 1.0],
        "sample_seed": 3,
    }


def test_the_published_unguided_sampler():
    found = describe(SampleSettings(solver="euler_maruyama", steps=250, shift=0.4))
    expected = {
        "steps": 250,
        "evaluations": 250,
        "guided_evaluations": 0,
        "diffusion": "sbdm",
        "start": 1e-5,
        "last_step": "mean",
        "last_step_size": 0.004,
    }
    assert expected.items() <= found.items()


def test_without_a_last_step_its_size_is_not_recorded():
    sde = SdeSettings(last_step="none")
    assert "last_step_size" not in describe(SampleSettings(solver="sde_heun", sde=sde))


def test_autoguidance_records_the_run():
    guidance = Guidance(scale=1.42, autoguidance="runs/weak")
    found = describe(SampleSettings(steps=10, guidance=guidance))
    assert found["autoguidance"] == "runs/weak"
    assert found["guided_evaluations"] == 10


def test_dopri5_records_its_tolerances_and_counted_evaluations():
    settings = SampleSettings(solver="dopri5")
    before = describe(settings)
    assert (before["rtol"], before["atol"]) == (1e-3, 1e-6)
    assert "steps" not in before
    count = EvaluationCount()
    count.add(2, 20, 10)
    count.add(1, 26, 13)
    after = describe(settings, count)
    assert (after["evaluations"], after["guided_evaluations"]) == (22, 11)


@pytest.mark.parametrize("resolved", [False, True])
def test_a_shift_by_dimension_is_a_number_once_the_latents_are_known(resolved):
    settings = SampleSettings(steps=10, shift_base=4096, end=0.999)
    found = describe(settings.for_latent(LatentShape(256, 8)) if resolved else settings)
    assert found["end"] == 0.999
    assert found["evaluations"] == 10
    assert found.get("shift") == (0.5 if resolved else None)
    assert found.get("shift_base") == (None if resolved else 4096)


# --- settings of the command line -----------------------------------------------------------------


@pytest.fixture
def recipe(tiny_recipe):
    """A recipe with further step counts."""
    return load_recipe(tiny_recipe, ["sample.few_steps=[1, 2]"], load_registry()).recipe


@pytest.mark.parametrize(
    ("guidance", "given", "message"),
    [
        (
            None,
            {"solver": "eulr"},
            r"^--solver: .*'eulr'.*'euler'\?$",
        ),
        (None, {"solver": "euler_maruyama", "steps": 1}, "^euler_maruyama .*2 steps"),
    ],
)
def test_invalid_options_are_rejected(recipe, guidance, given, message):
    with pytest.raises(UsageError, match=message):
        sampling_settings(recipe, load_registry(), guidance, given)


def test_guidance_without_label_drop_is_rejected(tiny_recipe):
    override = "generator.objective.label_drop=0"
    recipe = load_recipe(tiny_recipe, [override, "sample.guidance.scale=1"], load_registry()).recipe
    assert sampling_settings(recipe, load_registry(), None, {}).guidance.scale == 1
    with pytest.raises(UsageError, match="label_drop"):
        sampling_settings(recipe, load_registry(), 2.0, {})


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_guidance_1_also_turns_autoguidance_off(tiny_recipe, tmp_path, guidance):
    weak = tmp_path / "weak"
    (weak / "generator").mkdir(parents=True)
    (weak / "generator" / "weights.safetensors").touch()
    (weak / "resolved.yaml").write_text(tiny_recipe.read_text(encoding="utf-8"), encoding="utf-8")
    overrides = [f"sample.guidance.autoguidance={weak}", "sample.guidance.scale=3"]
    recipe = load_recipe(tiny_recipe, overrides, load_registry()).recipe
    found = sampling_settings(recipe, load_registry(), guidance, {}).guidance
    assert (found.scale, found.autoguidance) == (guidance, None if guidance == 1 else str(weak))
    assert recipe.sample.guidance.autoguidance == str(weak)


def test_an_unusable_autoguidance_run_is_rejected(tiny_recipe, tmp_path):
    weak = tmp_path / "weak"
    overrides = [f"sample.guidance.autoguidance={weak}", "sample.guidance.scale=3"]
    recipe = load_recipe(tiny_recipe, overrides, load_registry()).recipe
    with pytest.raises(UsageError) as refused:
        sampling_settings(recipe, load_registry(), None, {})
    assert str(weak) in str(refused.value)


def test_a_solver_that_is_not_installed_is_rejected(recipe, monkeypatch):
    monkeypatch.setattr("pae_framework.flow.flow_settings.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="torchdiffeq"):
        sampling_settings(recipe, load_registry(), None, {"solver": "dopri5"})


@pytest.mark.parametrize("solver", ["dopri5", "euler_maruyama"])
def test_further_sets_of_the_sample_stage_are_ignored(recipe, solver):
    settings = sampling_settings(recipe, load_registry(), None, {"solver": solver})
    assert (settings.solver, settings.few_steps) == (solver, ())


@pytest.fixture
def full_size():
    """A recipe whose samples are drawn in bf16, compiled; here on the CPU."""
    overrides = ("sample.precision=bf16", "sample.compile=true")
    return load_recipe("quickstart", overrides, load_registry()).recipe


def test_the_command_takes_the_precision_of_the_recipe_or_its_own(full_size):
    def precision(**options):
        return sampling_settings(full_size, load_registry(), None, options).precision

    assert precision() == precision(precision=None) == "bf16"
    assert precision(precision="float32") == "float32"
    with pytest.raises(UsageError, match="--precision"):
        precision(precision="fp16")


def test_the_command_compiles_only_if_asked(full_size, monkeypatch):
    def compiles(**options):
        return sampling_settings(full_size, load_registry(), None, options).compile

    assert compiles(compile=False) is False
    assert compiles() is False
    assert compiles(compile=True) is True
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiles() is False
    with pytest.raises(UsageError, match=r"--compile: .*no-such-compiler"):
        compiles(compile=True)
