"""Every environment variable that is read is documented, and every documented one is read."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = (
    r"(?:WORKBENCH|LLAMA_GPU|HF|HUGGINGFACE|TRANSFORMERS|XDG|AWS_EC2|CUDA_VISIBLE|HIP_VISIBLE|ROCR_VISIBLE)_[A-Z_]+"
)


def test_the_table_holds_what_is_read():
    page = (ROOT / "docs" / "install.md").read_text()
    rows = re.findall(r"^\| (`[A-Z0-9_]+`(?:, `[A-Z0-9_]+`)*) \|", page, re.MULTILINE)
    documented = set(re.findall(r"[A-Z0-9_]+", " ".join(rows)))
    sources = [
        path.read_text() for part in ("workbench", "widgets", "dashboards") for path in ROOT.glob(f"{part}/**/*.py")
    ]
    read = {name for source in sources for name in re.findall(rf'"({FAMILIES}|CXX)"', source)}
    assert documented == read
