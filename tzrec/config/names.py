"""Names that can be part of parameter names."""

from __future__ import annotations

import keyword

# What a `torch.nn.ModuleDict` has itself, so no module in it can be called so; written out
# since the config package imports no torch.
_TORCH = """
T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda
double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
named_modules named_parameters parameters pop register_backward_hook register_buffer
register_forward_hook register_forward_pre_hook register_full_backward_hook
register_full_backward_pre_hook register_load_state_dict_post_hook
register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty train training type update values xpu
zero_grad
"""


def parameter_name_problem(name: str) -> str:
    """Returns what is wrong with a name that becomes part of parameter names, "" if nothing is."""
    if not name or "." in name:
        return "it must not be empty nor hold '.'"
    if name in _TORCH.split():
        return "it must not be the name of a method of torch"
    if keyword.iskeyword(name):
        return "it must not be a word of Python, which an exported model cannot call a part"
    return ""
