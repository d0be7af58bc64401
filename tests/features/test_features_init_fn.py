"""init_fn text → initialiser, without evaluating anything."""

import functools
import inspect
import pickle

import pytest
import torch
from torch import nn

from tzrec.config.init_text import INITIALISERS, REQUIRED
from tzrec.errors import ConfigError
from tzrec.features.init_fn import parse_init_fn


@pytest.mark.parametrize(
    ("text", "function", "keywords"),
    [
        ("nn.init.uniform_,a=-0.01,b=0.01", nn.init.uniform_, {"a": -0.01, "b": 0.01}),
        ("nn.init.uniform_, -0.01, 0.01", nn.init.uniform_, {"a": -0.01, "b": 0.01}),
        ("torch.nn.init.normal_,std=1e-3", nn.init.normal_, {"std": 1e-3}),
        (" nn.init.zeros_ ", nn.init.zeros_, {}),
        ("nn.init.constant_,val=2", nn.init.constant_, {"val": 2}),
        ("nn.init.kaiming_uniform_,mode='fan_out'", nn.init.kaiming_uniform_, {"mode": "fan_out"}),
    ],
)
def test_parsed(text, function, keywords):
    init_fn = parse_init_fn(text)
    assert isinstance(init_fn, functools.partial)
    assert (init_fn.func, init_fn.args, init_fn.keywords) == (function, (), keywords)
    assert pickle.loads(pickle.dumps(init_fn)).keywords == keywords


def test_fills_the_table():
    table = torch.empty(50, 4)
    parse_init_fn("nn.init.uniform_,a=2.0,b=3.0")(table)
    assert table.min() >= 2
    assert table.max() <= 3
    assert table.unique().numel() > 100


def test_nothing():
    assert parse_init_fn("") is None
    assert parse_init_fn("  ") is None


def test_parsing_draws_no_random_numbers():
    state = torch.random.get_rng_state()
    parse_init_fn("nn.init.normal_")
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nn.init.unifrom_,a=0", "did you mean 'nn.init.uniform_'"),
        ("uniform_", "did you mean 'nn.init.uniform_'"),
        ("nn.init.uniform", "is no function of torch.nn.init"),
        ("nn.init._no_grad_fill_,val=0", "is no function of torch.nn.init"),
        ("nn.init.__builtins__", "is no function of torch.nn.init"),
        ("nn.init.torch.save", "is no function of torch.nn.init"),
        ("torch.load,'x'", "is no function of torch.nn.init"),
        ("__import__('os').system('true')", "is no function of torch.nn.init"),
        ("nn.init.uniform_,a=__import__('os').getpid()", "are not constants"),
        ("nn.init.uniform_,a=", "are not constants"),
        ("nn.init.uniform_,a=1) or (2", "are not constants"),
        ("nn.init.uniform_,low=0", "uniform_ has no argument 'low'"),
        ("nn.init.uniform_,0,1,2,3,4,5", "uniform_ takes at most 2 arguments, not 6"),
        ("nn.init.uniform_,a='x'", "uniform_"),
        ("nn.init.uniform_,a=1,b=-1", "uniform_"),
        ("nn.init.dirac_", "is no function of torch.nn.init that fills a table"),
        ("nn.init.constant_", "constant_ needs val"),
        ("nn.init.uniform_,1,a=0", "a is given twice"),
        ("nn.init.zeros_,1", "zeros_ takes at most 0 arguments"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_init_fn(text)
    assert error.value.hint


def test_the_list_of_functions_is_that_of_torch():
    """The config's list is written by hand, as nothing below the features imports torch."""
    in_torch = {name for name in dir(nn.init) if name.endswith("_") and name[0] != "_"}
    assert set(INITIALISERS) == in_torch - {"dirac_"}, "dirac_ fills only kernels of convolutions"
    for name, arguments in INITIALISERS.items():
        _, *parameters = inspect.signature(getattr(nn.init, name)).parameters.values()
        known = [p.name for p in parameters if p.name != "generator"]
        assert list(arguments) == known
        without_default = [p.name for p in parameters if p.default is inspect.Parameter.empty]
        assert ([REQUIRED[name]] if name in REQUIRED else []) == without_default
