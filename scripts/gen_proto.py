"""Regenerates tzrec/protos/**/*_pb2.py and .pyi from the .proto files.

protoc stamps its output with the runtime version that it was built with and refuses
older runtimes. Nothing else in the output needs that version, so the stamp is removed:
the committed files load on every protobuf major from 4 on.

Usage: python scripts/gen_proto.py [OUT_DIR]   (default: in place)
"""

import re
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
_STAMP = re.compile(
    r"^from google\.protobuf import runtime_version as _runtime_version\n"
    r"|^_runtime_version\.ValidateProtobufRuntimeVersion\(\n(?:.*\n)*?\)\n"
    r"|^# Protobuf Python Version:.*\n",
    re.MULTILINE,
)


def generate(out_dir: Path) -> list[Path]:
    """Writes the generated modules below ``out_dir`` and returns their paths."""
    protos = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "tzrec/protos").rglob("*.proto"))
    include = Path(protoc.__file__).parent / "_proto"
    command = ["protoc", f"-I{ROOT}", f"-I{include}", f"--python_out={out_dir}"]
    if protoc.main([*command, f"--pyi_out={out_dir}", *protos]) != 0:
        raise SystemExit("protoc failed; its message is above")
    written = []
    for proto in protos:
        module = out_dir / proto.replace(".proto", "_pb2.py")
        module.write_text(_STAMP.sub("", module.read_text()))
        written += [module, module.with_suffix(".pyi")]
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    print(f"{len(generate(target))} files")
