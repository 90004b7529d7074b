"""Progress bars: ``tqdm`` as a notebook or a terminal shows it, without the warning that it gives on import."""

from __future__ import annotations

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # In a notebook without ipywidgets tqdm shows a text bar, and a warning that helps nobody.
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
