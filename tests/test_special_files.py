"""Pipes, sockets and devices in the place of a user's file are named at once and never read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pae_datasets.idx import read_idx
from pae_framework.data.images import read_image
from pae_framework.data.latent_dataset import LatentDataset, shard_name
from pae_framework.data.statistics import load_statistics
from pae_framework.errors import PaeError
from pae_framework.hub import missing_weights
from pae_framework.interop.provenance import require_file
from pae_framework.preflight.requirements import missing_file
from pae_framework.recipe.library import find
from pae_framework.recipe.stage_table import _folder_contents
from pae_framework.recipe.yaml_source import read_file
from pae_framework.system.files import file_problem
from pae_framework.testing.pytest import Pae
from pae_framework.untrusted_files import read_untrusted
from pae_framework.weight_files import read_weights
from pae_framework.weight_parts import contents_identity

pytestmark = pytest.mark.timeout(60)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (pipe, "pipe"),
    "link to a pipe": (link_to_pipe, "pipe"),
    "device": (device, "device"),
    "socket": (unix_socket, "socket"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def special(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    make, kind = request.param
    path = tmp_path / "given"
    make(path)
    return path, kind


READERS: dict[str, Callable[[Path], object]] = {
    "image": lambda path: read_image(path, 16),
    "weights": read_weights,
    "tensors": read_untrusted,
    "statistics": load_statistics,
    "idx": lambda path: read_idx(path, 1),
    "recipe": find,
    "recipe by path": read_file,
    "file in a recipe": lambda path: require_file(str(path), "latents.statistics"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_special_file_is_named_and_not_read(
    read: Callable[[Path], object], special: tuple[Path, str]
) -> None:
    path, kind = special
    with pytest.raises(PaeError, match=rf"given is a {kind}, not a file"):
        read(path)


@pytest.mark.parametrize("read", [r for n, r in READERS.items() if n != "recipe"])
def test_a_missing_file_is_named(read: Callable[[Path], object], tmp_path: Path) -> None:
    with pytest.raises(PaeError, match=r"no such file: .*absent"):
        read(tmp_path / "absent")


def test_a_shard_that_is_a_pipe(tmp_path: Path) -> None:
    pipe(tmp_path / shard_name(0, 0))
    _folder_contents(str(tmp_path))
    with pytest.raises(PaeError, match=r"is a pipe, not a file"):
        LatentDataset(tmp_path)


def test_plans_and_checks_do_not_read_special_files(special: tuple[Path, str]) -> None:
    path, kind = special
    assert contents_identity(path) is None
    assert kind in (missing_file(str(path)) or "")
    assert kind in (missing_weights(str(path), None) or "")


def test_files_and_links_to_them_have_no_problem(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "b").symlink_to("a")
    assert file_problem(tmp_path / "a") is None
    assert file_problem(tmp_path / "b") is None
    assert file_problem(tmp_path, folder=True) is None


@pytest.mark.parametrize("name", ["loop", "a\0b", "a" * 300])
def test_names_that_lead_to_no_file(name: str, tmp_path: Path) -> None:
    if name == "loop":
        (tmp_path / name).symlink_to(name)
    assert file_problem(tmp_path / name) is not None


@pytest.mark.parametrize("extends", [False, True])
def test_a_recipe_that_is_a_pipe(extends: bool, tmp_path: Path, pae: Pae) -> None:
    pipe(tmp_path / "pipe.yaml")
    (tmp_path / "child.yaml").write_text("pae: 1\nname: a\nextends: pipe.yaml\n")
    result = pae("check", str(tmp_path / ("child.yaml" if extends else "pipe.yaml")))
    assert result.code == 2
    assert "pipe.yaml is a pipe, not a file" in result.err
