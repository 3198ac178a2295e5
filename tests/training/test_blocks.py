"""Blocks: finding, compiling and recomputing them in place."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch.utils.checkpoint
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_training import repeated, train_context, train_settings

from pae_framework.contracts import Batch, LossTerms
from pae_framework.frozen import UsesFrozen
from pae_framework.layers import Block
from pae_framework.seeding import Rows, generator, randn
from pae_framework.training.blocks import compile_blocks, find_blocks, recompute_blocks
from pae_framework.training.loop import train
from pae_framework.training.task import TrainTask


class Tower(nn.Module):
    """A small transformer."""

    def __init__(self, depth: int = 3, container: type = nn.ModuleList):
        super().__init__()
        self.embed = nn.Linear(4, 8)
        blocks = [Block(8, 2) for _ in range(depth)]
        self.blocks = nn.ModuleList(blocks) if container is nn.ModuleList else container(*blocks)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Seen(UsesFrozen):
    """A tower whose output goes through a frozen tower, as in a perceptual distance."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tower = Tower(2)
        self.widen = nn.Linear(1, 4)
        self.hold_frozen("judge", Tower(3))

    def forward(self, batch: Batch, generator: torch.Generator) -> LossTerms:
        return {"loss": self.judge(self.widen(self.tower(batch[0]))).square().mean()}


class TestFindBlocks:
    @pytest.mark.parametrize("container", [nn.ModuleList, nn.Sequential])
    def test_items_of_one_class_are_blocks_in_order(self, container: type):
        tower = Tower(3, container)
        assert find_blocks(tower) == list(tower.blocks)

    def test_blocks_of_frozen_helpers_are_found(self):
        seen = Seen()
        assert find_blocks(seen) == [*seen.tower.blocks, *seen.judge.blocks]

    def test_a_shared_network_is_searched_once(self):
        seen = Seen()
        seen.hold_frozen("again", seen.judge)
        assert len(find_blocks(seen)) == 5

    def test_single_layers_and_mixed_lists_are_not_blocks(self):
        assert find_blocks(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))) == []
        assert find_blocks(nn.ModuleList([Block(8, 2), nn.Linear(2, 2)])) == []

    def test_blocks_inside_blocks_are_not_searched(self):
        outer = nn.ModuleList([Tower(2), Tower(2)])
        assert find_blocks(outer) == list(outer)

    def test_nested_lists_are_searched(self):
        stages = nn.ModuleList([nn.Sequential(Block(8, 2)), nn.Sequential(Block(8, 2))])
        assert find_blocks(stages) == [stages[0][0], stages[1][0]]


def test_each_block_is_compiled(monkeypatch: pytest.MonkeyPatch):
    asked: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: asked.append(module))
    seen = Seen()
    compile_blocks(seen)
    assert asked == [*seen.tower.blocks, *seen.judge.blocks]


def backward(network: nn.Module, images: int = 64) -> tuple[dict[str, Tensor], int]:
    """Gradients by name, and the bytes kept for them, each storage counted once."""
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    network.zero_grad()
    x = torch.randn(images, 5, 4, generator=torch.Generator().manual_seed(1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = network((x,), torch.Generator())["loss"]
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage() for x in kept}
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters()}
    return gradients, sum(storage.nbytes() for storage in storages.values())


class TestRecompute:
    def test_gradients_are_the_same_for_less_memory(self):
        """Also through the frozen network, whose blocks have no gradients of their own."""
        plain, again = Seen(), Seen()
        recompute_blocks(again)
        expected, saved = backward(plain)
        found, less = backward(again)
        for name, gradient in expected.items():
            assert torch.allclose(gradient, found[name], rtol=1e-6, atol=1e-9)
        # A block of width D keeps one (B, N, D) input in place of a dozen; embeddings and heads
        # keep what they kept.
        assert less < saved / 3

    def test_names_of_weights_do_not_change(self):
        network = Seen()
        names = list(network.state_dict())
        recompute_blocks(network)
        assert list(network.state_dict()) == names

    def test_recomputing_twice_wraps_once(self):
        network = Seen()
        recompute_blocks(network)
        first = network.tower.blocks[0].forward
        recompute_blocks(network)
        assert network.tower.blocks[0].forward is first

    def test_a_copy_computes_with_its_own_weights(self):
        network = Tower()
        recompute_blocks(network)
        copied = copy.deepcopy(network)
        with torch.no_grad():
            for weight in network.parameters():
                weight.zero_()
        assert copied(torch.ones(1, 5, 4)).abs().sum() > 0

    def test_without_gradients_nothing_is_recomputed(self, monkeypatch: pytest.MonkeyPatch):
        plain, again = Tower().eval(), Tower().eval()
        again.load_state_dict(plain.state_dict())
        recompute_blocks(again)
        never = lambda *args, **kwargs: pytest.fail("checkpointed")  # noqa: E731
        monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", never)
        x = torch.ones(1, 5, 4)
        with torch.no_grad():
            assert torch.equal(plain(x), again(x))
        frozen = Tower().requires_grad_(False)
        recompute_blocks(frozen)
        frozen(x)

    def test_a_graph_supports_two_backward_passes(self):
        """As for an adaptive weight of a loss term."""
        network = Seen()
        expected, _ = backward(network)
        recompute_blocks(network)
        network.zero_grad()
        x = torch.randn(64, 5, 4, generator=torch.Generator().manual_seed(1))
        loss = network((x,), torch.Generator())["loss"]
        last = network.tower.head[2].weight
        (first,) = torch.autograd.grad(loss, last, retain_graph=True)
        loss.backward()
        assert torch.allclose(first, expected["tower.head.2.weight"], rtol=1e-6)
        assert torch.allclose(network.widen.weight.grad, expected["widen.weight"], rtol=1e-6)

    def test_recomputed_dropout_is_the_same(self):
        class Dropping(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)

            def forward(self, x: Tensor) -> Tensor:
                return self.drop(self.linear(x)).square()

        plain = nn.Sequential(Dropping(), Dropping())
        again = copy.deepcopy(plain)
        recompute_blocks(again)
        found = []
        for network in (plain, again):
            torch.manual_seed(4)
            network(torch.ones(16, 8)).sum().backward()
            found.append(network[0].linear.weight.grad)
        assert torch.allclose(*found, rtol=1e-6)

    @pytest.mark.parametrize("rows", [None, Rows(1, 2, 3)], ids=["alone", "shared"])
    def test_a_block_with_a_generator_is_not_recomputed(self, rows: Rows | None):
        class Noisy(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
                return self.linear(x) * randn((1, 8), generator)

        blocks = nn.ModuleList([Noisy()])
        recompute_blocks(blocks)
        draw, other = (generator(3, rows=rows) for _ in range(2))
        blocks[0](torch.ones(1, 8), draw).sum().backward()
        _, second = (randn((1, 8), other) for _ in range(2))
        assert torch.equal(randn((1, 8), draw), second)

    def test_batch_norm_is_updated_once(self):
        class Normed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.norm = nn.BatchNorm1d(8)

            def forward(self, x: Tensor) -> Tensor:
                return self.norm(x).square()

        blocks = nn.ModuleList([Normed()])
        recompute_blocks(blocks)
        blocks[0](torch.randn(4, 8)).sum().backward()
        assert blocks[0].norm.num_batches_tracked == 1


def trained(directory: Path, total: int = 2, **changes: object) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = Seen()
    x = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(1))
    settings = train_settings(2, lr=0.01, checkpoint_every=1, **changes)
    train(TrainTask(module, repeated((x,))), settings, total, train_context(directory))
    return load_file(directory / "weights.safetensors")


def test_recomputation_does_not_change_a_training(tmp_path: Path):
    plain = trained(tmp_path / "plain")
    again = trained(tmp_path / "again", activation_checkpointing=True)
    assert plain.keys() == again.keys()
    assert all(torch.allclose(value, again[name], atol=1e-6) for name, value in plain.items())


def test_the_settings_reach_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, **_: asked.append(module))
    trained(tmp_path / "eager")
    assert asked == []
    trained(tmp_path / "compiled", compile=True)
    assert [type(module) for module in asked] == [Block] * 5


def test_blocks_of_one_class_are_compiled_once(monkeypatch: pytest.MonkeyPatch):
    """Dynamo gives up after 8 versions of one function; ten blocks must not count as ten."""
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    compiled = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **how: compiled(module, backend=counter, **how)
    )
    torch._dynamo.reset()
    for recompute in (False, True):
        network = Tower(10)
        if recompute:
            recompute_blocks(network)
        compile_blocks(network)
        before = counter.frame_count
        network(torch.ones(2, 5, 4)).sum().backward()
        assert 1 <= counter.frame_count - before <= 2
    torch._dynamo.reset()


def test_a_compiled_graph_supports_two_backward_passes(monkeypatch: pytest.MonkeyPatch):
    """As for an adaptive weight that begins late: compiled code must not give its buffers away."""
    compiled = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda module, **how: compiled(module, backend="aot_eager", **how)
    )
    torch._dynamo.reset()
    network = Seen()
    compile_blocks(network)
    x = torch.randn(4, 5, 4)
    network((x,), torch.Generator())["loss"].backward()
    network.zero_grad()
    loss = network((x,), torch.Generator())["loss"]
    last = network.tower.head[2].weight
    (first,) = torch.autograd.grad(loss, last, retain_graph=True)
    loss.backward()
    assert torch.allclose(first, last.grad, rtol=1e-5)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_training_resumes_from_an_eager_checkpoint(tmp_path: Path, recompute: bool):
    eager = trained(tmp_path / "eager")
    trained(tmp_path / "mixed", total=1)
    mixed = trained(tmp_path / "mixed", compile=True, activation_checkpointing=recompute)
    assert eager.keys() == mixed.keys()
    assert all(torch.allclose(value, mixed[name], atol=1e-5) for name, value in eager.items())
    Seen().load_state_dict(mixed)
