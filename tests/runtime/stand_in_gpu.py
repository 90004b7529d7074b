"""Stand-ins for pycuda and TensorRT on a machine without a GPU: memory is the host's, work is done when it is queued.

They answer as the libraries do, the refusals included, so that all of the session itself runs as on a GPU.
"""

import ctypes
from types import SimpleNamespace

import numpy as np

TYPES = {"FLOAT": np.float32, "HALF": np.float16, "INT32": np.int32}


class Driver:
    """pycuda.driver. ``interrupt``: the names of calls that end in KeyboardInterrupt, each once."""

    class Error(Exception):
        pass

    class MemoryError(Error):
        pass

    def __init__(self):
        self.interrupt = []
        self.stack = []
        driver = self

        class Stream:
            handle = 7

            def __init__(self, flags):
                pass

            def synchronize(self):
                driver.called("stream.synchronize")

        class Event:
            def record(self, stream):
                pass

            def synchronize(self):
                driver.called("event.synchronize")

            def time_since(self, other):
                return 1.0

        class Context:
            @staticmethod
            def pop():
                driver.stack.pop()

            @staticmethod
            def get_current():
                return driver.stack[-1] if driver.stack else None

            def push(self):
                if driver.interrupt[:1] == ["refuse"]:
                    driver.interrupt.pop(0)
                    raise driver.Error("refused")
                driver.stack.append(self)
                driver.called("push")

            def detach(self):
                pass

        self.Stream, self.Event, self.Context = Stream, Event, Context

    def called(self, name):
        if name in self.interrupt:
            self.interrupt.remove(name)
            raise KeyboardInterrupt

    def init(self):
        pass

    def Device(self, ordinal):
        return SimpleNamespace(name=lambda: "Stand-in", retain_primary_context=self.Context)

    def mem_get_info(self):
        return 2**30, 2**30

    def mem_alloc(self, size):
        return _Memory(size)

    def pagelocked_empty(self, size, dtype):
        return np.asarray(_Memory(size))

    def memcpy_htod_async(self, address, source, stream):
        ctypes.memmove(address, source.ctypes.data, source.nbytes)

    def memcpy_dtoh_async(self, target, address, stream):
        ctypes.memmove(target.ctypes.data, address, target.nbytes)


class _Memory:
    def __init__(self, size):
        self._array = np.full(size, 255, np.uint8)
        self.__array_interface__ = self._array.__array_interface__

    def __int__(self):
        return self._array.ctypes.data

    def free(self):
        pass


class Library:
    """The module tensorrt with one engine. ``inputs``: type names; ``outputs``: labels and type name, tags or not."""

    __version__ = "8.6.0"
    ILogger = object
    TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")

    def __init__(self, layout, profiles, outputs, *, shared=True, contexts=True, bad=None):
        self.layout, self.profiles, self.outputs = layout, profiles, outputs
        self.shared, self.contexts, self.bad = shared, contexts, bad
        self.taken, self.told, self.runs = set(), [], 0
        names = {
            "packed": ("input_ids", "position_ids", "cu_seqlens", "longest", "segment_ids"),
            "padded": ("input_ids", "attention_bias"),
        }[layout]
        self.inputs = {name: "FLOAT" if name == "attention_bias" else "INT32" for name in names}

    def Runtime(self, log):
        return SimpleNamespace(deserialize_cuda_engine=lambda data: _Engine(self))


class _Engine:
    device_memory_size = 1024

    def __init__(self, library):
        self.library = library
        self.names = [*library.inputs, *library.outputs]
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), len(library.profiles)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_dtype(self, name):
        inputs, outputs = self.library.inputs, self.library.outputs
        return SimpleNamespace(name=inputs[name] if name in inputs else outputs[name][1])

    def get_tensor_mode(self, name):
        return "input" if name in self.library.inputs else "output"

    def get_tensor_shape(self, name):
        return (-1, self.library.outputs[name][0])

    def get_tensor_profile_shape(self, name, profile):
        shapes = [getattr(self.library.profiles[profile], which) for which in ("min", "opt", "max")]
        if self.library.layout == "padded":
            return shapes
        return [{"cu_seqlens": (texts + 1,)}.get(name, (tokens,)) for texts, tokens in shapes]

    def create_execution_context_without_device_memory(self):
        return _Execution(self) if self.library.contexts else None


class _Execution:
    def __init__(self, engine):
        self.library, self.shapes, self.addresses = engine.library, {}, {}
        self.active_optimization_profile = 0

    def set_optimization_profile_async(self, profile, stream):
        if profile in self.library.taken and not self.library.shared:
            raise RuntimeError("Error in set optimization profile async.")  # as the binding does
        self.library.taken.add(profile)
        self.active_optimization_profile = profile
        return True

    def set_input_shape(self, name, shape):
        self.library.told.append(name)
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name, address):
        self.library.told.append(name)
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        """Each token's id times its place, and their sum over a text."""
        library = self.library
        library.runs += 1
        given = {
            name: self._array(name, self.shapes[name], TYPES[library.inputs[name]])
            for name in library.inputs
            if name != "longest"
        }
        ids = given["input_ids"].astype(np.float64)
        if library.layout == "padded":
            values = ids * (np.arange(ids.shape[1]) + 1) * (given["attention_bias"][:, 0, 0] == 0)
            sums = values.sum(1)
        else:
            values = ids * (given["position_ids"] + 1)
            sums = np.bincount(given["segment_ids"], values, len(given["cu_seqlens"]) - 1)
        for name, (labels, kind, tags) in library.outputs.items():
            own = values if tags else sums
            made = (own[..., None] + np.arange(labels)).astype(TYPES[kind])
            if library.bad is not None:
                made.flat[0] = library.bad
            self._array(name, made.shape, TYPES[kind])[...] = made
        return True

    def _array(self, name, shape, kind):
        count = int(np.prod(shape))
        memory = (ctypes.c_uint8 * (count * np.dtype(kind).itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, kind).reshape(shape)


class Log:
    """What the library said: one complaint, which is taken."""

    def take(self):
        return ""
