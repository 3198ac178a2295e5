"""The conformance suite: one class for each kind of component, for pytest and `pae check-plugin`.

Subclass the class of the kind in a test file of your plugin::

    from pae_framework.testing import EncoderContract

    class TestMyEncoder(EncoderContract):
        component = MyEncoder
        config = MyEncoderConfig(width=32)

The tests build the component from its class and config, at two sizes that the config accepts and
under several seeds. They need no network; without a GPU, the test for it is skipped. Small configs
make fast tests. A failed test explains the contract and what to change.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pae_framework.config import ComponentConfig
from pae_framework.kinds import KINDS, Kind
from pae_framework.testing import hostile
from pae_framework.testing.expect import expect
from pae_framework.testing.registration import check_config
from pae_framework.testing.setups import Setup, accepted


class ComponentContract:
    """What every component keeps. Subclass the class of its kind."""

    kind: ClassVar[str]
    component: ClassVar[type[Any]]
    """The class under test."""
    config: ClassVar[Any]
    """Its parameters, an instance of its config model."""

    @classmethod
    def names_of_tests(cls) -> list[str]:
        """Names of the tests, in order; they take no arguments and may raise SkipTest."""
        defined = [name for base in reversed(cls.mro()) for name in vars(base)]
        return list(dict.fromkeys(name for name in defined if name.startswith("test_")))

    def test_config_and_class(self) -> None:
        """The class and its config derive from the base classes of their kind."""
        kind = self._kind()
        for name, base in (("component", kind.contract_class()), ("config", ComponentConfig)):
            expect(hasattr(self, name), f"set `{name}` in {type(self).__name__}: {base.__name__}")
        expect(
            isinstance(self.component, type) and issubclass(self.component, kind.contract_class()),
            f"component is {self.component!r}, not a subclass of contracts.{kind.contract}",
        )
        expect(
            isinstance(self.config, kind.config_class()),
            f"config is {self.config!r}, not an instance of a config.{kind.config}",
        )

    def test_parameters_are_documented(self) -> None:
        """The config has a docstring, rejects unknown keys and describes every field."""
        check_config(type(self.config))

    def test_smoke_version(self) -> None:
        """``config.smoke()`` is a config of the same class."""
        small = self.config.smoke()
        expect(
            type(small) is type(self.config),
            f"{type(self.config).__name__}.smoke() gives {small!r}, not another "
            f"{type(self.config).__name__}; use self.model_copy(update={{...}})",
        )

    def _kind(self) -> Kind:
        return KINDS[self.kind]

    @contextmanager
    def _explained(self, at: str) -> Iterator[None]:
        """Begin messages with the component and its size; other errors break the contract, too."""
        subject = f"{self.kind} {self.component.__name__}, {at}"
        try:
            yield
        except unittest.SkipTest:
            raise
        except AssertionError as error:
            raise AssertionError(f"{subject}: {error}") from error
        except Exception as error:
            raise AssertionError(f"{subject}: {type(error).__name__}: {error}") from error


class ModuleContract(ComponentContract):
    """What every network keeps: how the engine builds, trains, evaluates and moves it.

    A kind is tested at image sizes or at grids. Set those that your config accepts if it accepts
    none of these.
    """

    image_sizes: ClassVar[Sequence[int]] = (12, 16, 20, 24, 28, 32, 48, 64, 96, 128, 224, 256)
    """Sides of images in pixels; the first two that the config accepts are tested."""
    odd_image_sizes: ClassVar[Sequence[int]] = (13, 15, 17)
    """Sides that few patches divide; all that the config accepts are tested."""
    grids: ClassVar[Sequence[int]] = (4, 6, 8, 16)
    """Sides of latents, or of the grid of tokens; the first two accepted ones are tested."""
    odd_grids: ClassVar[Sequence[int]] = (3, 5)
    """Odd sides of latents or grids; all that the config accepts are tested."""

    def test_contract(self) -> None:
        """What the engine relies on in this kind of component."""
        self._each(lambda setup: setup.check(setup.build()))

    def test_odd_sizes(self) -> None:
        """A size that the config accepts works, odd ones too; others raise a ValueError."""
        self._each(lambda setup: setup.check(setup.build()), self.odd_setups())

    def test_one_image(self) -> None:
        """A batch may hold one image."""
        self._each(hostile.expect_one_image)

    def test_bf16(self) -> None:
        """Under bf16 autocast the result is finite and near that of float32."""
        self._each(hostile.expect_bf16_finite)

    def test_nan(self) -> None:
        """NaN is neither hidden nor spread over a batch."""
        self._each(hostile.expect_nan_stays)

    def test_no_grad(self) -> None:
        """Results do not depend on gradients being recorded."""
        self._each(hostile.expect_no_grad)

    def test_gpu(self) -> None:
        """A GPU gives the numbers of the CPU."""
        self._each(lambda setup: hostile.expect_device(setup, "cuda"))

    def test_compile(self) -> None:
        """`train.compile` changes no result."""
        self._each(hostile.expect_compiles, self.setups()[:1])

    def test_meta_device(self) -> None:
        """`pae run --dry-run` can build it without memory."""
        self._each(hostile.expect_meta)

    def test_equal_builds(self) -> None:
        """One seed gives one set of weights."""
        self._each(hostile.expect_equal_builds)

    def test_other_process(self) -> None:
        """Class and config can be sent to another process, which builds the same weights."""
        self._each(hostile.expect_same_in_another_process, self.setups()[:1])

    def setups(self) -> list[Setup]:
        """How the tests build the component: at two sizes."""
        raise NotImplementedError

    def odd_setups(self) -> list[Setup]:
        """The component at odd sizes that its config accepts."""
        raise NotImplementedError

    def _each(self, check: Callable[[Setup], None], setups: Iterable[Setup] | None = None) -> None:
        for setup in self.setups() if setups is None else setups:
            with self._explained(setup.at):
                check(setup)

    def _chosen(
        self, at: str, candidates: Iterable[int], accepts: Callable[[int], object]
    ) -> list[int]:
        """The first two candidates that the config accepts.

        Raises:
            AssertionError: it accepts none.
        """
        found = accepted(candidates, accepts)
        expect(
            bool(found),
            f"{self.config!r} accepts none of the {at} {', '.join(map(str, candidates))}; check a "
            "config that accepts one of them, or choose others: `image_sizes` or `grids` of the "
            "contract class, --image-size or --grid of pae check-plugin",
        )
        return found[:2]
