"""Feature generation knows nothing of torch, and importing it acts on nothing."""

import subprocess
import sys


def test_no_torch():
    code = (
        "import sys, os; before = dict(os.environ); "
        "import tzrec.fg.encoded, tzrec.fg.parsed, tzrec.fg.hashing; "
        "assert dict(os.environ) == before; "
        "print([m for m in ('torch', 'torchrec', 'fbgemm_gpu', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
