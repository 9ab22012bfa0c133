"""Runs ONNX files with onnxruntime, which like onnx itself is imported only where it is used."""
from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from src.errors import EnvironmentFault

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def import_optional(name: str) -> ModuleType:
    """A module that training does not need. Raises EnvironmentFault where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentFault(f"ONNX files need the package {name}, which cannot be imported ({error}); "
                               "pip install -r requirements.txt") from error


def open_session(source: str | bytes) -> InferenceSession:
    """An onnxruntime session on the CPU. source: path or content of a file. Raises ValueError for any other content."""
    runtime = import_optional("onnxruntime")
    errors = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3  # errors only: its warnings about unused weights and devices concern no user
    try:
        return runtime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
            errors.NotImplemented) as error:
        raise ValueError(f"onnxruntime: {error}") from error
