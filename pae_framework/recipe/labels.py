"""Labels of regularizers and evaluators: what they may be, and which are taken. No torch."""

from __future__ import annotations

import re

_LABEL = re.compile(r"[a-z][a-z0-9_-]*")

_LOGGED = """
step lr loss l1 perceptual lpips adversarial adversarial_weight grad_norm images_per_s
data_wait discriminator logits_real logits_fake opponent_lr opponent_loss opponent_grad_norm
"""

LOGGED = frozenset(_LOGGED.split())
"""What the log of the tokenizer's training holds beside the regularizers' terms."""

FACTOR = "_weight"
"""What the log puts behind the label of an adaptive term to name its factor."""

_MODULE_DICT = """
add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double
dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
named_modules named_parameters parameters pop register_backward_hook register_buffer
register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook
register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty train training type update values xpu
zero_grad
"""

MODULE_DICT = frozenset(_MODULE_DICT.split())
"""Names that torch's ``ModuleDict``, which holds the regularizers, keeps for itself."""

RESERVED = LOGGED | MODULE_DICT
"""Labels that no regularizer can have."""


def label_fault(label: str, reserved: frozenset[str] = frozenset()) -> str | None:
    """Say why ``label`` cannot be one, or None: it names a term in logs or a folder."""
    if not _LABEL.fullmatch(label):
        return "a label is a small letter, then small letters, digits, '_' and '-'"
    if label in reserved or (reserved and label.endswith(FACTOR)):
        return f"{label!r} is a name the engine uses itself"
    return None
