"""Frozen helpers stand beside a module, where whoever counts or walks them can find them."""

from torch import nn

from pae_framework.frozen import UsesFrozen


def test_frozen_helpers_are_found_by_name_in_their_order_and_follow_casts():
    module, helpers = UsesFrozen(), {"judge": nn.Linear(2, 3), "eye": nn.Linear(3, 1)}
    assert module.frozen_modules() == {}
    for name, helper in helpers.items():
        module.hold_frozen(name, helper)
    assert list(module.frozen_modules().items()) == list(helpers.items())
    assert list(module.parameters()) == []
    module.double()
    assert {p.dtype.itemsize for helper in helpers.values() for p in helper.parameters()} == {8}
