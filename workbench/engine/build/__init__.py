"""Plans from graphs: onnxruntime for machines without a GPU, TensorRT 8.6 to 11, and TensorRT-RTX.

    builder   one engine, from a model folder to a manifest
    layout    padded or packed, and why
    graph     the network in a precision, with the ranges an INT8 one needs
    profiles  optimization profiles from how long texts are
    timings   what a builder measured of each kernel, kept for later builds
    ort       the plan for onnxruntime: the graph itself, run once
    trt       everything in which TensorRT's versions differ
    layers    what the engine inspector says: the precision layers really run in
    progress  TensorRT's phases as one bar

Importing this package imports neither onnx nor TensorRT.
"""

from __future__ import annotations

from workbench.engine.build.builder import build, host, model_target
from workbench.engine.build.profiles import make_packed_profiles, make_profiles, parse_profile, profile_text

__all__ = [
    "build",
    "host",
    "make_packed_profiles",
    "make_profiles",
    "model_target",
    "parse_profile",
    "profile_text",
]
