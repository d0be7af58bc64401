"""What the targets of an export take to score a batch: TorchScript, frozen, compiled.

    python benchmarks/compiled.py [--rows 200 4096] [--steps 50] [--rounds 30] [--largest 100000]

Models of the examples with random weights and ids; tables are cut to ``--largest`` rows. One
thread, batches in parse keys; medians of CPU time in ms. Every target is compared with the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tzrec.config import prepare
from tzrec.deploy import aoti, torchscript
from tzrec.deploy.trace import quiet, trace
from tzrec.models.wrappers import ScriptWrapper
from tzrec.training.build import build_features, build_model

EXAMPLES = Path(__file__).parent.parent / "examples"
MODELS = ("deepfm_criteo", "dcn_v2_criteo", "multi_tower_din_taobao")
CPU = torch.device("cpu")
Module = Callable[[dict[str, Tensor], torch.device], dict[str, Tensor]]


def build(name: str, largest: int) -> ScriptWrapper:
    path = EXAMPLES / f"{name}.config"
    edits = {}
    for i, wrapper in enumerate(prepare(str(path)).config.feature_configs):
        here = f"feature_configs[{i}]"
        steps = enumerate(wrapper.sequence_feature.features)
        tables = {f"{here}.sequence_feature.features[{j}]": f.id_feature for j, f in steps}
        for place, feature in {here: wrapper.id_feature, **tables}.items():
            for size in ("num_buckets", "hash_bucket_size"):
                if getattr(feature, size) > largest:
                    edits[f"{place}.id_feature.{size}"] = largest
    config = prepare(str(path), edit_config_json=json.dumps(edits)).config
    torch.manual_seed(0)
    features = build_features(config.data_config, config.feature_configs)
    return ScriptWrapper(build_model(config, features, with_labels=False)).eval()


def batch(features: list[Any], rows: int, steps: int) -> dict[str, Tensor]:
    """Returns parse keys: one id a feature, 1 to ``steps`` a sequence."""
    generator = torch.Generator().manual_seed(rows)
    data: dict[str, Tensor] = {}
    lengths = torch.randint(1, steps + 1, (rows,), generator=generator, dtype=torch.int32)
    for feature in features:
        own = lengths if feature.is_sequence else torch.ones(rows, dtype=torch.int32)
        if feature.is_sparse:
            size = (int(own.sum()),)
            ids = torch.randint(0, feature.num_embeddings, size, generator=generator)
            data |= {f"{feature.name}.values": ids, f"{feature.name}.lengths": own}
        else:
            data[f"{feature.name}.values"] = torch.randn(
                rows, feature.value_dim, generator=generator
            )
    return data


def targets(wrapper: ScriptWrapper, golden: dict[str, Tensor], folder: Path) -> dict[str, Module]:
    with torchscript.inference_mode_of(wrapper), torch.inference_mode(), quiet():
        traced = trace(wrapper)
        found: dict[str, Module] = {"TorchScript": torchscript.compile_graph(traced)}
        found["frozen"] = torch.jit.freeze(torch.jit.script(traced).eval())
        found["optimize_for_inference"] = torch.jit.optimize_for_inference(
            torch.jit.script(traced).eval()
        )
        for target, unified in (("aoti", False), ("aoti_unified", True)):
            (folder / target).mkdir()
            aoti.write(wrapper, golden, folder / target, unified=unified)
            found[target] = aoti.load(folder / target, CPU)
    return found


def cpu_ms(module: Module, data: dict[str, Tensor], rounds: int) -> float:
    times = []
    for i in range(rounds + 10):
        start = time.thread_time()
        module(data, CPU)
        if i >= 10:
            times.append(time.thread_time() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 4096])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--largest", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in MODELS:
        wrapper = build(name, arguments.largest)
        batches = [batch(wrapper.model.features, n, arguments.steps) for n in arguments.rows]
        with tempfile.TemporaryDirectory() as folder:
            modules = targets(wrapper, batches[0], Path(folder))
        for data, rows in zip(batches, arguments.rows, strict=True):
            with torchscript.inference_mode_of(wrapper), torch.inference_mode():
                expected = wrapper(data)["probs"]
                for target, module in modules.items():
                    ms = cpu_ms(module, data, arguments.rounds)
                    gap = float((module(data, CPU)["probs"] - expected).abs().max())
                    rate = f"{rows / ms * 1e3:>11,.0f} rows/s"
                    print(f"{name:<24}{rows:>6}  {target:<24}{ms:>8.2f} ms {rate}  {gap:.1e}")


if __name__ == "__main__":
    main()
