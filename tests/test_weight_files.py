"""Which weights of another program's file are read: entries, prefixes, parts; and what is said."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pae_framework.errors import CheckpointError
from pae_framework.weight_files import AVERAGES, TRAINED, read_checkpoint, read_weights
from pae_framework.weight_parts import contents_identity

NAMES = ("embed.weight", "blocks.0.weight", "blocks.1.weight")
SHAPES = ((2, 3), (3, 3), (3, 3))
REST = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}, "lr": 1e-4}


def network(value: float, prefix: str = "") -> dict[str, Tensor]:
    """A state dict whose every number is ``value``."""
    shapes = zip(NAMES, SHAPES, strict=True)
    return {prefix + name: torch.full(shape, value) for name, shape in shapes}


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def value_of(tensors: Mapping[str, Tensor]) -> float:
    """The one value of a network's numbers."""
    assert set(tensors) == set(NAMES)
    (value,) = {number for tensor in tensors.values() for number in tensor.flatten().tolist()}
    return float(value)


# --- entries --------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("trained", TRAINED)
def test_every_known_average_and_its_trained_weights(
    average: str, trained: str, tmp_path: Path
) -> None:
    path = saved({trained: network(1), **REST, average: network(2)}, tmp_path / "a.pt")

    for prefer, key, value in (("average", average, 2), ("trained", trained, 1)):
        found = read_weights(path, prefer)  # type: ignore[arg-type]
        other = trained if key == average else average
        assert (found.entry, value_of(found.tensors)) == (key, value)
        assert (found.alternatives, set(found.left)) == ((other,), {other, *REST})
        for name in (path.name, *found.left):
            assert name in found.summary


def test_an_average_alone_is_never_taken_for_trained_weights(tmp_path: Path) -> None:
    path = saved({"ema": network(2), "step": 3}, tmp_path / "a.pt")
    assert value_of(read_weights(path, "average").tensors) == 2
    with pytest.raises(CheckpointError, match=r"a\.pt.*`ema`, `step`"):
        read_weights(path, "trained")


@pytest.mark.parametrize("nothing", [None, {}, [], 0.999, "off", {"decay": 0.99}])
def test_an_empty_average_is_none(nothing: Any, tmp_path: Path) -> None:
    path = saved({"model": network(1), "ema": nothing}, tmp_path / "a.pt")
    assert value_of(read_weights(path, "average").tensors) == 1


@pytest.mark.parametrize(
    "nested",
    [
        {"module": network(2), "updates": 7, "decay": 0.99},
        {"state_dict": network(2)},
        {"decay": 0.99, "num_updates": 5, "shadow_params": list(network(2).values())},
        {"decay": 0.99, "shadow": network(2)},
        list(network(2).values()),
        tuple(network(2).values()),
    ],
    ids=["module", "state_dict", "torch-ema", "shadow", "list", "tuple"],
)
def test_averages_in_other_forms(nested: Any, tmp_path: Path) -> None:
    path = saved({"model": network(1), "ema": nested}, tmp_path / "a.pt")
    found = read_weights(path, "average")
    assert value_of(found.tensors) == 2
    assert (found.entry or "").split(".")[0] == "ema"


@pytest.mark.parametrize(
    "content",
    [
        {"model": network(1), "ema": list(network(2).values())[:-1]},
        {"model": network(1), "ema": list(network(2).values())[::-1]},
        {"model": network(1), "ema": [*network(2).values(), "end"]},
        {"ema": list(network(2).values())},
        {"model": network(1), "ema": {**network(2), "decay": 0.99}},
        {"model": network(1), "ema": {"weights of": {"the": network(2)}}},
        {"model": network(1), "generator_ema": network(2)},
        {"model": network(1), "swa_state": network(2)},
        {"model": network(1), "EMA": network(2)},
    ],
    ids=["fewer", "order", "text", "alone", "mixed", "deep", "unknown", "swa", "capitals"],
)
def test_an_average_that_cannot_be_used_is_not_passed_over(content: Any, tmp_path: Path) -> None:
    path = saved(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt") as caught:
        read_weights(path, "average")
    (average,) = content.keys() - {"model"}
    assert f"`{average}`" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(1)], torch.zeros(2), 3, {}, {"epoch": 3}, {"a": torch.zeros(1), "b": 1}, None],
)
def test_a_file_without_weights_is_named(content: Any, tmp_path: Path) -> None:
    path = saved(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_weights(path)


def containing_itself(key: str, weights: bool) -> dict[str, Any]:
    """A map with itself under a key; ``weights``: it is also a state dict."""
    content: dict[str, Any] = {**network(1), "epoch": 3} if weights else {"t": [torch.ones(2)]}
    content[key] = content
    return content


@pytest.mark.parametrize("key", ["model", "ema", "state_dict", "teacher"])
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("prefer", ["average", "trained"])
def test_a_map_that_contains_itself_is_named(
    key: str, weights: bool, prefer: Any, tmp_path: Path
) -> None:
    path = saved(containing_itself(key, weights), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        read_weights(path, prefer)


def test_lists_that_repeat_each_other_are_walked_once(tmp_path: Path) -> None:
    many: list[Any] = [0]
    for _ in range(4):  # 3000^4 elements, one by one
        many = [many] * 3000
    path = saved({"ema": many, "model": network(1)}, tmp_path / "a.pt")
    assert value_of(read_weights(path, "average").tensors) == 1


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        ("module.embed.weight", "embed.weight"),
        ("module.module.embed.weight", "embed.weight"),
        ("_orig_mod.module.embed.weight", "embed.weight"),
        ("_forward_module._orig_mod.embed.weight", "embed.weight"),
        ("blocks.0._orig_mod.weight", "blocks.0.weight"),
        ("_fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.weight", "blocks.0.weight"),
        ("blocks.0._checkpoint_wrapped_module.weight", "blocks.0.weight"),
        ("heads.module.weight", "heads.module.weight"),  # a module of this name
    ],
)
def test_wrappers_come_off(wrapped: str, plain: str, tmp_path: Path) -> None:
    path = saved({wrapped: torch.ones(1)}, tmp_path / "a.pt")
    assert set(read_weights(path).tensors) == {plain}


def test_two_names_that_become_one_are_refused(tmp_path: Path) -> None:
    path = saved({"module.x": torch.ones(1), "x": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt.* x "):
        read_weights(path)


@pytest.mark.parametrize("prefix", ["backbone.", "model.", "teacher.backbone.", "net.encoder.vit."])
def test_a_network_behind_any_prefix(prefix: str, tmp_path: Path) -> None:
    heads = {"head.weight": torch.zeros(3, 2), "loss.scale": torch.zeros(1)}
    path = saved({"model": network(1, prefix) | heads}, tmp_path / "a.pt")
    found = read_weights(path, "average", NAMES)
    assert (found.prefix, value_of(found.tensors)) == (prefix, 1)
    assert {"head.*", "loss.*"} <= set(found.left)


@pytest.mark.parametrize(
    ("average", "trained"),
    [
        ("teacher.backbone.", "student.backbone."),
        ("ema_model.", "online_model."),
        ("ema.", ""),
        ("target_encoder.", "encoder."),
    ],
)
def test_two_networks_in_one_state_dict(average: str, trained: str, tmp_path: Path) -> None:
    path = saved({**network(1, trained), **network(2, average)}, tmp_path / "a.pt")
    for prefer, value in (("average", 2), ("trained", 1)):
        found = read_weights(path, prefer, NAMES)  # type: ignore[arg-type]
        assert value_of(found.tensors) == value
        assert len(found.alternatives) == 1


def test_two_networks_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    path = saved({**network(1, "left."), **network(2, "right.")}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt.*left\..*right\."):
        read_weights(path, "average", NAMES)


def test_a_choice_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_checkpoint(saved({"model": network(1), "epoch": 3}, tmp_path / "one.pt"))
        read_checkpoint(saved({"student": network(1), "teacher": network(2)}, tmp_path / "two.pt"))
    (message,) = caplog.messages
    assert all(word in message for word in ("two.pt", "student", "teacher"))


# --- parts ----------------------------------------------------------------------------------------


def write_parts(folder: Path, suffix: str = "safetensors") -> Path:
    """The network in two parts, and their index."""
    folder.mkdir()
    where = {}
    for number, names in enumerate((NAMES[:1], NAMES[1:]), start=1):
        part = {name: tensor for name, tensor in network(1).items() if name in names}
        file = f"model-0000{number}-of-00002.{suffix}"
        if suffix == "safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
        where |= dict.fromkeys(names, file)
    index = folder / f"model.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_an_index_and_its_folder(suffix: str, tmp_path: Path) -> None:
    index = write_parts(tmp_path / "parts", suffix)
    (index.parent / "config.json").write_text("{}")
    for path in (index, index.parent):
        assert value_of(read_weights(path).tensors) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_a_part_alone_says_what_to_pass(number: int, tmp_path: Path) -> None:
    index = write_parts(tmp_path / "parts")
    part = index.parent / f"model-0000{number}-of-00002.safetensors"
    with pytest.raises(CheckpointError) as caught:
        read_weights(part)
    assert str(part) in str(caught.value)
    assert str(index) in str(caught.value)
    index.unlink()
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_weights(part)


def test_the_only_part_is_the_whole(tmp_path: Path) -> None:
    save_file(network(1), tmp_path / "model-00001-of-00001.safetensors")
    assert value_of(read_weights(tmp_path / "model-00001-of-00001.safetensors").tensors) == 1


def test_a_folder_with_one_file(tmp_path: Path) -> None:
    save_file(network(1), tmp_path / "model.safetensors")
    (tmp_path / "README.md").write_text("weights")
    assert value_of(read_weights(tmp_path).tensors) == 1
    torch.save(network(2), tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*pytorch_model\.bin"):
        read_weights(tmp_path)


@pytest.mark.parametrize("file", ["notes.txt", "__0_0.distcp"])
def test_a_folder_without_weights(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=tmp_path.name):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        "\x00",
        "[" * 100_000,
        '{"weight_map": {}}',
        '{"weight_map": 3}',
        '{"weight_map": {"a": 3}}',
        '{"weight_map": {"a": "../secret.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "model-00003-of-00002.safetensors"}}',
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        '{"weight_map": {"a": "."}}',
        '{"weight_map": {"a": "a\\u0000b"}}',
    ],
)
def test_a_damaged_index_is_named(content: str, tmp_path: Path) -> None:
    index = write_parts(tmp_path / "parts")
    index.write_text(content)
    (tmp_path / "secret.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_weights(index)


def test_a_part_is_missing_or_damaged(tmp_path: Path) -> None:
    index = write_parts(tmp_path / "parts")
    part = index.parent / "model-00002-of-00002.safetensors"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=part.name):
        read_weights(index)
    part.unlink()
    with pytest.raises(CheckpointError, match=part.name):
        read_weights(index)


def test_parts_are_identified_by_their_contents(tmp_path: Path) -> None:
    index = write_parts(tmp_path / "parts")
    first = contents_identity(index)
    assert contents_identity(index.parent) == first
    assert contents_identity(index.parent.rename(tmp_path / "moved")) == first
    save_file(network(3), tmp_path / "moved" / "model-00002-of-00002.safetensors")
    assert contents_identity(tmp_path / "moved") != first
    assert contents_identity(tmp_path / "gone") is None
