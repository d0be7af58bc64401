"""Feature generation knows nothing of torch, and importing it acts on nothing."""

import pickle
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.csv import write_csv

from tzrec.tools.fg_setup import FgSetup
from tzrec.tools.generate_features import GenerateJob


def test_no_torch():
    code = (
        "import sys, os; before = dict(os.environ); "
        "import tzrec.fg.encoded, tzrec.fg.parsed, tzrec.fg.hashing; "
        "assert dict(os.environ) == before; "
        "print([m for m in ('torch', 'torchrec', 'fbgemm_gpu', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WORKER = """
import pickle, sys
import tzrec.cli  # the main module of the command, which each process imports
job, paths = pickle.loads(bytes.fromhex(sys.argv[1]))
from tzrec.datasets.formats import create_reader
from tzrec.datasets.split import RowOrder
work = job.start(0)
for path in paths:
    reader = create_reader(path, ["c"])
    for batch in reader.read(RowOrder.of_blocks(reader.blocks())):
        work.keep(work.compute(batch))
print(work.finish(), [m for m in ("torch", "torchrec") if m in sys.modules])
"""


def test_processes_that_generate_offline_need_no_torch(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.csv", "b.parquet")]
    table = pa.table({"c": ["a", "b"]})
    write_csv(table, paths[0])
    pq.write_table(table, paths[1])
    entry = {"feature_type": "id_feature", "feature_name": "f", "expression": "user:c"}
    setup = FgSetup({"features": [{**entry, "hash_bucket_size": 9}]})
    schema = pa.schema({"f": pa.list_(pa.int64())})
    job = GenerateJob(setup, str(tmp_path / "out"), (), schema=schema)
    sent = pickle.dumps((job, paths)).hex()
    command = [sys.executable, "-c", WORKER, sent]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "4 []"
