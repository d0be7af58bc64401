"""Every shipped config, compiled both ways: which models can be, and how they score.

The table of docs/aot.md is made of what ``-s`` prints here, by ``aoti_page.py``.
"""

import time

import example_runs
import pytest
import torch
from aoti_page import WRONG
from example_configs import CONFIGS, stem

from tzrec.config import prepare
from tzrec.deploy import aoti, torchscript
from tzrec.deploy.parts import sample_parts
from tzrec.deploy.verify import compare, parity_cases
from tzrec.models.wrappers import ScriptWrapper
from tzrec.options import Options
from tzrec.training.build import build_features, build_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _work(tmp_path_factory):
    root = tmp_path_factory.mktemp("work")
    example_runs.work_in(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Parts of the model of a config with random weights: [(name, wrapper, batch)]."""
    made = {}

    def get(path):
        if path not in made:
            root = tmp_path_factory.mktemp(path.stem)
            edits = example_runs.small(path, steps=20, batch=128, negatives=128)
            arguments = example_runs.generate(path, root, edits, rows=2560, eval_rows=100)
            config = prepare(str(path), edit_config_json=edits).config
            config.train_input_path = _train_input(arguments)
            features = build_features(config.data_config, config.feature_configs)
            torch.manual_seed(1)
            model = build_model(config, features, with_labels=False).eval()
            model.set_is_inference(True)
            parts = sample_parts(model, config, features, Options())
            made.clear()  # one at a time
            made[path] = [(n, ScriptWrapper(p.model), _inputs(p)) for n, p in parts.items()]
        return made[path]

    return get


def _train_input(arguments):
    """The path that follows a flag, or stands behind its =."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    return words[words.index("--train-input-path") + 1]


def _inputs(part):
    names = {feature.name for feature in part.features}
    return {k: v for k, v in part.golden.items() if k.rpartition(".")[0] in names}


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=stem)
@pytest.mark.parametrize("unified", [False, True], ids=["aoti", "aoti_unified"])
def test_compiled(built, path, unified, tmp_path):
    for name, wrapper, inputs in built(path):
        work = tmp_path / (name or "model")
        work.mkdir()
        with torchscript.inference_mode_of(wrapper), torch.inference_mode():
            start = time.monotonic()
            aoti.write(wrapper, inputs, work, unified=unified)
            seconds = time.monotonic() - start
            module = aoti.load(work, CPU)
            worst = 0.0
            for batch in parity_cases(inputs).values():
                differences = compare(
                    dict(wrapper(batch)), torchscript.run(module, batch, CPU), relative=1e-6
                )
                worst = max(worst, *(d.max_abs for d in differences))
        kind = "aoti_unified" if unified else "aoti"
        print(f"| {path.stem} | {name} | {kind} | {worst:.1e} | {seconds:.0f} s |")
        if unified and (path.stem, name) in WRONG:
            assert worst > 1e-3, "compiled well: take it out of WRONG and of docs/aot.md"
        else:
            assert worst <= 1e-6
