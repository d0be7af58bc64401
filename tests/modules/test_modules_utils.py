import pytest
import torch
from torch import nn

from tzrec.config.names import parameter_name_problem
from tzrec.errors import ConfigError
from tzrec.modules.utils import (
    BaseModule,
    Kernel,
    check_module_name,
    init_linear_xavier_weights_zero_bias,
)
from tzrec.protos import model_pb2


class Tree(BaseModule):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(1, 1), BaseModule())


def test_kernel_numbers_are_those_of_the_config() -> None:
    assert {kernel.name: kernel.value for kernel in Kernel} == dict(model_pb2.Kernel.items())


def test_flags_exclude_each_other_and_reach_all_modules() -> None:
    tree = Tree()
    assert (tree.is_train, tree.is_eval, tree.is_inference) == (True, False, False)
    tree.eval()
    assert (tree.is_train, tree.is_eval, tree.is_inference) == (False, True, False)
    tree.set_is_inference(True)
    assert (tree.is_train, tree.is_eval, tree.is_inference) == (False, False, True)
    assert tree.inner[1].is_inference
    assert tree.inner[1].kernel() is Kernel.PYTORCH
    tree.set_kernel(Kernel.TRITON)
    assert (tree.kernel(), tree.inner[1].kernel()) == (Kernel.TRITON, Kernel.TRITON)


def test_xavier_init_bounds_weights_and_clears_bias() -> None:
    linear = nn.Linear(30, 20)
    linear.apply(init_linear_xavier_weights_zero_bias)
    bound = (6 / 50) ** 0.5
    assert linear.weight.abs().max() <= bound
    assert linear.weight.abs().max() > 0.9 * bound
    assert torch.equal(linear.bias, torch.zeros(20))


@pytest.mark.parametrize("name", ["", "a.b", "keys", "items", "forward", "training", "class"])
def test_names_that_torch_refuses_are_config_errors(name: str) -> None:
    with pytest.raises(ConfigError, match="embedding_name"):
        check_module_name(name, "embedding_name")
    assert check_module_name("cat_1_emb", "embedding_name") == "cat_1_emb"


def test_every_name_that_torch_takes_is_refused() -> None:
    """The list in the config package, which knows no torch, is complete."""
    public = [name for name in dir(nn.ModuleDict()) if not name.startswith("_")]
    assert [name for name in public if not parameter_name_problem(name)] == []
