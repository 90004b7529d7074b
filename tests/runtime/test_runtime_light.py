"""Reading needs numpy, tokenizers and a backend, nothing else."""

import subprocess
import sys

CODE = """
import sys

ALLOWED = {"numpy", "tokenizers", "onnxruntime", "workbench", "tomli"}
# What onnxruntime itself looks for when it is imported; none of it is needed.
OWN = {"google", "flatbuffers", "packaging", "sympy", "mpmath", "coloredlogs", "humanfriendly", "huggingface_hub"}


class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in ALLOWED or top in OWN or top.startswith("_"):
            return None
        raise ImportError(f"{name} is not part of the light half")


sys.meta_path.insert(0, Guard())
from workbench.runtime import open_session
from workbench.runtime.read import read_texts

with open_session(sys.argv[1]) as session:
    reading = read_texts(session, ["good price", None, "质量很好"])
assert reading.reason == [None, "null", None]
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = {"polars", "pydantic", "torch", "onnx", "transformers", "httpx", "tqdm"} & loaded
assert not heavy, heavy
print("read")
"""


def test_reading_imports_nothing_heavy(tiny):
    done = subprocess.run([sys.executable, "-c", CODE, str(tiny)], capture_output=True, text=True)
    assert done.stdout.strip() == "read", done.stderr
