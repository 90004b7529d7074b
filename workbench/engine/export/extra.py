"""The packages of the extra ``export``, imported when a function needs them.

Each comes back as ``Any``: type checking gives the same answer whether the extra is installed or not.
"""

from __future__ import annotations

from typing import Any

from workbench.errors import ModelError

__all__ = ["import_hub", "import_onnx", "import_torch", "import_transformers"]


def _missing(package: str) -> ModelError:
    return ModelError(
        f"Exporting a checkpoint needs {package}, which is not installed. Install the extra in the workbench's "
        "checkout with: pip install -c constraints.txt -e '.[export]'"
    )


def import_torch() -> Any:
    """The module torch. Raises ModelError when the extra ``export`` is not installed."""
    try:
        import torch
    except ImportError:
        raise _missing("torch") from None
    return torch


def import_transformers() -> Any:
    """The module transformers. Raises ModelError when the extra ``export`` is not installed."""
    try:
        import transformers
    except ImportError:
        raise _missing("transformers") from None
    return transformers


def import_onnx() -> Any:
    """The module onnx, with its checker and helpers. Raises ModelError when the extra ``export`` is not installed."""
    try:
        import onnx
        import onnx.checker
        import onnx.numpy_helper
    except ImportError:
        raise _missing("onnx") from None
    return onnx


def import_hub() -> Any:
    """The module huggingface_hub, which comes with transformers. Raises ModelError when it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise _missing("transformers") from None
    return huggingface_hub
