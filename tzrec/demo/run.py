"""``tzrec demo``: from nothing to exported predictions, and how good they can be at best."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from importlib import resources
from pathlib import Path

from tzrec.demo.clicklog import ClickLog, Shop, exact_auc, write_click_log
from tzrec.errors import ConfigError

DEFAULT_DIR = "experiments/demo"
_RESULT = "demo.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of ``tzrec demo``."""
    parser.add_argument(
        "--dir", default=DEFAULT_DIR, help=f"where everything is written (default {DEFAULT_DIR})"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a twentieth of the data: shows the way, not the quality",
    )


def run(args: argparse.Namespace) -> int:
    """Makes data, trains, evaluates, exports, predicts, and says what came of it.

    Args:
        args: ``dir`` and ``quick`` of `add_arguments`.

    Returns:
        0.

    Raises:
        ConfigError: ``dir`` holds something that no demo has made.
        TzrecError: whatever the steps of a real run raise.
    """
    started = time.monotonic()
    demo = Demo(Path(args.dir), _shop(quick=args.quick))
    demo.clean()
    _say("1/5  a click log with a planted structure")
    log = demo.make_data()
    _say(_describe(log))
    # Here, because this loads torch.
    from tzrec.main import evaluate, export, predict, train_and_evaluate

    config = str(demo.config)
    _say(f"2/5  training: tzrec train {config}")
    train_and_evaluate(config)
    _say("3/5  evaluation on the test days")
    metrics = evaluate(config, eval_input_path=str(log.paths["test"]))
    _say(f"4/5  export: tzrec export {config} {demo.export}")
    export(config, str(demo.export))
    _say("5/5  prediction with the exported model")
    predict(
        str(log.paths["test"]),
        str(demo.predictions),
        str(demo.export),
        output_columns="probs",
        reserved_columns="user_id,item_id,clicked",
    )
    auc = demo.predicted_auc()
    demo.record(log, auc=auc, eval_auc=metrics["auc"], seconds=time.monotonic() - started)
    _say(_summary(demo, log, auc, time.monotonic() - started))
    return 0


@dataclasses.dataclass(frozen=True)
class Demo:
    """Where the demo keeps its things.

    Attributes:
        root: holds everything.
        shop: what is simulated.
    """

    root: Path
    shop: Shop

    @property
    def config(self) -> Path:
        """The shipped config with the paths of this directory."""
        return self.root / "demo.config"

    @property
    def export(self) -> Path:
        """The exported model."""
        return self.root / "export"

    @property
    def predictions(self) -> Path:
        """Directory of the predictions."""
        return self.root / "predictions"

    def clean(self) -> None:
        """Removes what an earlier demo left here, and nothing else."""
        if not self.root.exists():
            return
        if not self.root.is_dir() or (any(self.root.iterdir()) and not self.config.exists()):
            raise ConfigError(
                f"--dir {self.root}: exists, and no demo has made it",
                hint="name a new directory, or one of an earlier demo (it is made anew)",
            )
        for name in ("data", "model", "export", "predictions"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        (self.root / _RESULT).unlink(missing_ok=True)

    def make_data(self) -> ClickLog:
        """Writes the config and the click log."""
        self.root.mkdir(parents=True, exist_ok=True)
        shipped = resources.files("tzrec.demo").joinpath("demo.config").read_text()
        self.config.write_text(shipped.replace(DEFAULT_DIR, str(self.root)))
        return write_click_log(self.root / "data", self.shop)

    def predicted_auc(self) -> float:
        """AUC of the predictions on disk."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.predictions)
        return exact_auc(table["clicked"].to_numpy(), table["probs"].to_numpy())

    def record(self, log: ClickLog, **numbers: float) -> None:
        """Writes the numbers of this run to ``demo.json``."""
        facts = {"rows": log.num_rows, "bayes_auc": log.bayes_auc, **numbers}
        (self.root / _RESULT).write_text(json.dumps(facts, indent=1) + "\n")


def _shop(*, quick: bool) -> Shop:
    return Shop(num_rounds=(24, 4, 4)) if quick else Shop()


def _describe(log: ClickLog) -> str:
    rows = ", ".join(f"{count:,} {split}" for split, count in log.num_rows.items())
    return (
        f"     {log.paths['train'].parent}: {rows} rows, {log.click_rate:.1%} clicked\n"
        f"     the generator knows the true click probabilities: no model can beat "
        f"their AUC, {log.bayes_auc:.4f}"
    )


def _summary(demo: Demo, log: ClickLog, auc: float, seconds: float) -> str:
    root, config, test = demo.root, demo.config, log.paths["test"]
    scores = {
        f"the exported model on {log.num_rows['test']:,} test rows": auc,
        "the true probabilities (Bayes: the best possible)": log.bayes_auc,
        "a coin": 0.5,
    }
    things = {
        f"{config}": "the job, in one file: read it, it has comments",
        f"{root / 'model'}": "checkpoints, metrics of each evaluation, TensorBoard events",
        f"{root / 'model' / 'report.html'}": "the run in pictures: open it in a browser",
        f"{demo.export}": "the model for serving",
        f"{demo.predictions}": "user, item, label and predicted probability of the test rows",
    }
    quick = log.num_rows["train"] < 100_000
    note = "\n  (a twentieth of the rows; all of them bring it within .01)" if quick else ""
    path = "" if shutil.which("tzrec") else "  . .venv/bin/activate\n"
    return f"""
Done in {seconds:.0f} s.

AUC of
{_columns({text: f"{score:.4f}" for text, score in scores.items()})}{note}

Made
{_columns(things)}

Try next
{path}\
  tzrec train {config} --model-dir {root}/wider \\
      --set model_config.deepfm.deep.hidden_units=[256,128]
  tzrec eval {config} --eval-input-path {test}
  tzrec importance {config} --rows 10000 --out {root}/importance
  tensorboard --logdir {root}/model
  tzrec serve {demo.export}  # then open http://localhost:8000
and see how an error looks:
  tzrec check {config} --data --set data_config.label_fields=click
Your own data: docs/own_data.md"""


def _columns(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows.items())


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
