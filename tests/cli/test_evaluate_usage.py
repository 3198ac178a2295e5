"""`pae evaluate` takes a run or samples, and says what does not go together."""

from pathlib import Path

import pytest
from card_runs import finished_run

WRONG = [
    (["a", "--only", "reconstructions"], "reconstruction"),
    (["a", "--only", "reconstruction", "--only", "fid"], "fid"),
    (["a", "--samples", "s.npz"], "--samples"),
    (["a", "--reference", "r.npz"], "--reference"),
    (["a", "--metrics", "adm"], "--metrics"),
    (["a", "--weights", "none"], "--weights"),
    (["a", "--size", "16"], "--size"),
    (["a", "--batch-size", "64"], "--batch-size"),
    (["a", "--cache", "c"], "--cache"),
    (["a", "--processes", "0"], "--processes"),
    (["b"], "b"),
    (["a/resolved.yaml"], "a/resolved.yaml"),
    ([], "--samples"),
    (["--samples", "s.npz"], "--reference"),
    (["--reference", "s.npz"], "--samples"),
    (["--samples", "s.npz", "--reference", "r.npz", "--only", "adm"], "--only"),
    (["--samples", "s.npz", "--reference", "r.npz", "--again"], "--again"),
    (["--samples", "s.npz", "--reference", "r.npz", "--processes", "0"], "--processes"),
]


@pytest.mark.parametrize(("words", "named"), WRONG, ids=lambda value: "".join(value))
def test_wrong_usage(words, named, pae, tmp_path):
    run = finished_run(tmp_path / "a")
    record = (run / "evaluate" / "stage.json").read_bytes()
    assert named in pae("evaluate", *words).fails(2).err
    assert (run / "evaluate" / "stage.json").read_bytes() == record


@pytest.mark.parametrize("words", [[], ["--again"]])
def test_a_run_that_is_not_finished_is_named_with_what_lacks(words, pae, tmp_path):
    run = finished_run(tmp_path / "a")
    (run / "sample" / "stage.json").unlink()
    assert "'sample'" in pae("evaluate", "a", *words).fails(2).err
    assert (run / "evaluate" / "reconstruction").is_dir()


def test_a_recipe_without_evaluators(pae, tmp_path):
    finished_run(tmp_path / "a", changes={"evaluate": {}})
    assert "no evaluators" in pae("evaluate", "a").fails(2).err


TOKENIZER = '''
from pydantic import Field

from pae_framework import hookimpl
from pae_framework.config import LatentShape, TokenizerConfig

pae_api = 1


class PooledConfig(TokenizerConfig):
    """Pools."""

    factor: int = Field(description="px that are pooled")

    def latent_shape(self, image_size):
        return LatentShape(3, image_size // self.factor)


@hookimpl
def pae_register_tokenizers(register):
    config = f"{__name__}:PooledConfig"
    register("pooled", target=f"{__name__}:Pooled", config=config, summary="Pools.")
'''
RECIPE = "pae: 1\nname: mine\ndata: {image_size: 8, train: digits, test: digits}\n"


@pytest.mark.parametrize(
    ("tokenizer", "data", "named"),
    [
        ("pooled", "quickstart:test", "tokenizer.factor"),
        ("{use: pooled}", "quickstart:test", "tokenizer.factor"),
        ("sd_vae", "mine.yaml:test", "tokenizer.factor"),
    ],
)
def test_the_tokenizer_of_a_plugin_file_is_known(tokenizer, data, named, pae, tmp_path):
    Path("tok.py").write_text(TOKENIZER)
    Path("mine.yaml").write_text(f"{RECIPE}tokenizer: {{use: pooled}}\n")
    text = pae("evaluate", "--tokenizer", tokenizer, "--data", data, "--plugin", "tok.py").fails(2)
    assert named in text.err
