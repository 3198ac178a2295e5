"""What the engine does with every network, and what other components and machines do to it."""

from __future__ import annotations

import pickle
import subprocess
import sys
import unittest
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pae_framework.file_plugins import Portable
from pae_framework.promises import difference_problem
from pae_framework.seeding import seeded
from pae_framework.testing.expect import expect, expect_none
from pae_framework.testing.modules import ROWS, expect_bf16
from pae_framework.testing.setups import Setup

GPU = 1e-2
"""Tolerance, of the largest value, between CPU and GPU."""
COUNT = 3


def expect_one_image(setup: Setup) -> None:
    """A batch of one image gives what the image gives in a larger batch."""
    module = setup.module()
    with torch.no_grad():
        one = setup.compute(module, *setup.inputs(1))
        several = setup.compute(module, *setup.inputs(COUNT))
    expect(bool(one.isfinite().all()), "the result for a batch of one image is not finite")
    if not setup.per_image:
        return
    expect(
        one.shape == (1, *several.shape[1:]),
        f"a batch of one image gives the shape {tuple(one.shape)}, expected "
        f"{(1, *several.shape[1:])}; the last batch of an epoch may hold one image, so do not "
        "squeeze the batch dimension",
    )


def expect_bf16_finite(setup: Setup) -> None:
    """Under bf16 autocast, near float32."""
    module = setup.module()
    inputs = setup.inputs(COUNT)
    expect_bf16(lambda: setup.compute(module, *inputs), "the component")


def expect_nan_stays(setup: Setup) -> None:
    """NaN in one image gives NaN for this image and for no other.

    A class that states why in ``hides_nan`` may give finite numbers for it.
    """
    module = setup.module()
    inputs = setup.inputs(COUNT)
    damaged = tuple(_with_nan(x) for x in inputs)
    with torch.no_grad():
        clean, found = setup.compute(module, *inputs), setup.compute(module, *damaged)
    first = found[:1] if setup.per_image else found
    stated = getattr(setup.component, "hides_nan", None)
    advice = "" if stated is None else ", or state in `hides_nan` of the class why it must be so"
    expect(
        bool(stated) or not bool(first.isfinite().all()),
        "an image of NaN gives finite numbers, which hides a training that diverged; remove "
        f"nan_to_num and the like{advice}",
    )
    if setup.per_image:
        message = "NaN in one image must not change the results of the others in its batch"
        expect(bool(found[1:].isfinite().all()), message)
        expect_none(difference_problem(found[1:], clean[1:], ROWS, message))


def _with_nan(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x
    damaged = x.clone()
    damaged[0] = float("nan")
    return damaged


def expect_no_grad(setup: Setup) -> None:
    """Evaluation computes the same without recording gradients."""
    module = setup.module()
    inputs = setup.inputs(COUNT)
    recorded = setup.compute(module, *inputs).detach()
    try:
        with torch.no_grad():
            plain = setup.compute(module, *inputs)
    except RuntimeError as error:
        raise AssertionError(
            f"it fails under torch.no_grad(), which evaluation and sampling use: {error}"
        ) from error
    expect_none(difference_problem(plain, recorded, ROWS, "no_grad must change no result"))


def expect_device(setup: Setup, device: str) -> None:
    """The same numbers on a device.

    Raises:
        unittest.SkipTest: there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise unittest.SkipTest("no GPU on this machine")
    module = setup.module()
    inputs = setup.inputs(COUNT)
    with torch.no_grad():
        expected = setup.compute(module, *inputs)
        moved = module.to(device)
        try:
            found = setup.compute(moved, *(x.to(device) for x in inputs))
        except RuntimeError as error:
            raise AssertionError(
                f"it fails on {device}: {error}. Create tensors on the device of the input, and "
                "register constants as buffers"
            ) from error
    expect(found.device.type == device, f"the result is on {found.device}, not on {device}")
    message = f"{device} must give the numbers of the CPU"
    expect_none(difference_problem(found.cpu(), expected, GPU, message))


def expect_compiles(setup: Setup) -> None:
    """Traced by torch.compile, which `train.compile` uses, it computes the same."""
    module = setup.module()
    inputs = setup.inputs(COUNT)
    with torch.no_grad():
        expected = setup.compute(module, *inputs)
        try:
            compiled = torch.compile(module, backend="eager")
            found = setup.compute(compiled, *inputs)
        except Exception as error:
            raise AssertionError(
                f"torch.compile fails: {type(error).__name__}: {error}. Keep `forward` free of "
                "Python that depends on values of tensors"
            ) from error
        finally:
            torch.compiler.reset()
    expect_none(difference_problem(found, expected, ROWS, "torch.compile must change no result"))


def expect_meta(setup: Setup) -> None:
    """On the meta device, as `--dry-run` builds it, the result has its shape.

    A loss term is only built: the dry run does not compute it.
    """
    inputs = setup.inputs(COUNT)
    with torch.no_grad():
        found = expected = setup.compute(setup.module(), *inputs)
        try:
            module = setup.on_meta()
            if setup.per_image:
                found = setup.compute(module, *(x.to("meta") for x in inputs))
        except Exception as error:
            raise AssertionError(
                f"it fails on the meta device, on which `pae run --dry-run` counts: "
                f"{type(error).__name__}: {error}. Do not read values of tensors in the "
                "constructor or in `forward`"
            ) from error
    shapes = tuple(found.shape), tuple(expected.shape)
    expect(
        shapes[0] == shapes[1], f"the shape is {shapes[0]} on the meta device, but {shapes[1]} here"
    )


def expect_equal_builds(setup: Setup) -> None:
    """Built twice under one seed, whatever happened before, it has the same weights."""
    first, again = setup.build("one"), setup.build("one")
    expect_equal_states(_state(first), _state(again), "built twice under one seed")
    other = setup.build("another")
    try:
        other.load_state_dict(first.state_dict())
    except RuntimeError as error:
        raise AssertionError(
            f"the state dict of one {type(first).__name__} does not fit another with the same "
            f"config: {error}"
        ) from error


def expect_equal_states(
    first: dict[str, Tensor], again: dict[str, Tensor], circumstances: str
) -> None:
    """The same names and bits."""
    differs = sorted(
        name
        for name in first.keys() | again.keys()
        if name not in first
        or name not in again
        or not torch.equal(first[name].nan_to_num(), again[name].nan_to_num())
    )
    expect(
        not differs,
        f"{circumstances}, {', '.join(differs[:3])} differ: the other stages and processes of a "
        "run would get other weights. Draw initial weights from torch's default generator or from "
        "a seed of the config, not from time, hash() or an unseeded generator",
    )


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def expect_same_in_another_process(setup: Setup) -> None:
    """A new Python process that gets class and arguments by pickle builds the same weights."""
    state = in_another_process(_built_state, setup.component, setup.arguments)
    with seeded("contract"):
        own = setup.component(*setup.arguments)
    expect_equal_states(_state(own), state, "built in two processes under one seed")


def _built_state(component: Callable[..., Any], arguments: Sequence[Any]) -> dict[str, Tensor]:
    with seeded("contract"):
        built = component(*arguments)
    return {name: value.cpu() for name, value in built.state_dict().items()}


_CHILD = """
import os, pickle, sys
answer = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what the component prints is no answer
sys.path[:], work = pickle.load(sys.stdin.buffer)
function, arguments = pickle.loads(work).value
pickle.dump(function(*arguments), answer)
answer.close()
"""


def in_another_process(function: Callable[..., Any], *arguments: object) -> Any:
    """What a function of a module returns in a new Python process, which gets all by pickle.

    Plugins of one file are imported there first.

    Raises:
        AssertionError: an argument cannot be pickled, or the function fails.
    """
    try:
        work = pickle.dumps(Portable((function, arguments)))
    except Exception as error:
        raise AssertionError(
            f"it cannot be sent to another process: {error}. Define the class and its config at "
            "the top of an importable module, and keep open files and functions out of attributes"
        ) from error
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD],
        input=pickle.dumps((sys.path, work)),
        capture_output=True,
        check=False,
    )
    output = done.stderr.decode(errors="replace")
    expect(
        done.returncode == 0 and bool(done.stdout),
        f"it fails in another process, which ends with exit code {done.returncode}:\n{output}",
    )
    return pickle.loads(done.stdout)
