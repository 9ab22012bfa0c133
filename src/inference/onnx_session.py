"""Runs ONNX files with onnxruntime, which like onnx itself is imported only where it is used."""
import importlib

from src.errors import EnvironmentFault


def import_optional(name):
    """A module that training does not need. Raises EnvironmentFault where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EnvironmentFault(f"ONNX files need the package {name}, which cannot be imported ({error}); "
                               "pip install -r requirements.txt") from error


def open_session(source):
    """An onnxruntime session on the CPU. source: path of a file, or its bytes. Raises ValueError if it is none."""
    runtime = import_optional("onnxruntime")
    errors = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3  # errors only: what it says of unused weights and devices concerns no user
    try:
        return runtime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf,
            errors.NotImplemented) as error:
        raise ValueError(f"onnxruntime: {error}") from error
