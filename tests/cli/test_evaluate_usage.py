"""`pae evaluate` takes a run or samples, and says what does not go together."""

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
