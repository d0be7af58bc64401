"""A whole run whose data lies on an S3 server."""

from __future__ import annotations

from tzrec import storage
from tzrec.cli import main
from tzrec.constant import TRAIN_EVAL_RESULT_FILENAME


def test_training_from_s3_gives_what_local_files_give(s3_url, click_config, tmp_path):
    config = click_config(num_rows=600)
    results = []
    for name, root in (("local", str(tmp_path)), ("s3", s3_url)):
        for part in ("train", "eval"):
            if name == "s3":
                with storage.open_file(f"{root}/{part}.parquet", "wb") as file:
                    file.write((tmp_path / f"{part}.parquet").read_bytes())
        run = tmp_path / name
        flags = [f"--{part}-input-path={root}/{part}*.parquet" for part in ("train", "eval")]
        assert main(["train", str(config), *flags, f"--model-dir={run}"]) == 0
        results.append((run / TRAIN_EVAL_RESULT_FILENAME).read_text())
    assert results[0] == results[1] != ""
