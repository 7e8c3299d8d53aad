"""GPUs that are none: tensors that say they are on cuda:I, hold CPU memory, and refuse what a GPU would refuse.

Inside `pretended` torch sees so many CUDA devices. A tensor that goes there becomes a `GpuTensor`: its numbers stay
real, and mixing devices, or making an array of it, raises as it does on a GPU. What a GPU would wait for is counted,
and memory runs out where it is told to. It cannot show what needs the hardware: races between streams, TF32, speed.
"""

import contextlib
import threading
from collections import Counter
from unittest import mock

import torch
import torch._dynamo  # it takes stock of torch's functions when it is imported, which must not be in here
from torch.overrides import TorchFunctionMode

#: Operations that may see tensors of several devices.
_MAY_MIX = {
    *("copy_", "to", "index_put_", "index_put", "__getitem__", "__setitem__", "set_", "type_as", "__get__", "__set__"),
    *("_has_compatible_shallow_copy_type", "data", "swap_tensors"),
}
#: Operations whose answer the CPU waits for.
_WAITING = {
    *("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "__contains__", "nonzero", "argwhere"),
    *("is_nonzero", "equal", "allclose", "unique", "masked_select", "flatnonzero"),
}
#: Products of matrices, which a process may have set to round as TF32 does.
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "linear", "conv2d", "einsum"}
#: Questions whose answer is no tensor of the device.
_PLAIN = {
    *("is_pinned", "stride", "size", "dim", "numel", "storage_offset", "is_contiguous", "data_ptr", "untyped_storage"),
    *("element_size", "is_floating_point", "is_complex"),
}


class GpuTensor(torch.Tensor):
    """CPU memory that says it is on a GPU."""

    _index = 0
    device = property(lambda self: torch.device(_kind[0], self._index))
    is_cuda = property(lambda self: _kind[0] == "cuda")
    is_cpu = property(lambda self: False)

    def get_device(self):
        return self._index

    def record_stream(self, stream):
        """Memory is never given back here before its last user is done."""

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = numpy

    def __deepcopy__(self, memo):
        with torch._C.DisableTorchFunction():
            plain = self.as_subclass(torch.Tensor).detach().clone()
        copy = _on_gpu(plain, self._index).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copy._is_param = True
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


#: Since `pretended` began: how many tensors were made on each GPU, by its number; "copies in" and "copies out", "waits"
#: for an answer (a copy out is one), and "calls", operations on tensors of a GPU.
used = Counter()
#: What they are: "cuda", or "mps", which has no float64.
_kind = ["cuda"]
#: The largest tensor, in bytes, that each GPU's memory takes.
_room = [float("inf")]


def _on_gpu(tensor, index):
    if isinstance(tensor, GpuTensor):
        return tensor
    if tensor.numel() * tensor.element_size() > _room[0]:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {tensor.numel()} numbers.")
    if _kind[0] == "mps" and tensor.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    used[index] += 1
    with torch._C.DisableTorchFunction():
        gpu = tensor.as_subclass(GpuTensor)
    gpu._index = index
    return gpu


def _outputs_on_gpu(out, index):
    if isinstance(out, torch.Tensor):
        return _on_gpu(out, index)
    if isinstance(out, tuple) and type(out) is not tuple:  # named, or one of torch.return_types
        parts = [_outputs_on_gpu(part, index) for part in out]
        return type(out)(*parts) if hasattr(out, "_fields") else type(out)(parts)
    return type(out)(_outputs_on_gpu(part, index) for part in out) if isinstance(out, list | tuple) else out


def _tensors(tree):
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, list | tuple | dict):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(part)


def _target(name, args, kwargs):
    """Return the device that an operation is asked to put its result on, None where it is not asked."""
    target = kwargs.get("device")
    if name == "cpu":
        target = "cpu"
    elif name == "cuda":
        target = args[1] if len(args) > 1 else "cuda"
    elif name == "to" and len(args) > 1 and isinstance(args[1], str | torch.device | torch.Tensor):
        target = args[1].device if isinstance(args[1], torch.Tensor) else args[1]
    return None if target is None else torch.device(target)


def _call(func, args, kwargs):
    name = getattr(func, "__name__", str(func))
    gpus = [tensor for tensor in _tensors([args, kwargs]) if isinstance(tensor, GpuTensor)]
    target = _target(name, args, kwargs)
    if name in ("to", "cpu", "cuda") and target is not None:
        return _move(name, args, kwargs, target)
    if target is not None and target.type == _kind[0]:
        with torch._C.DisableTorchFunction():
            out = func(*args, **kwargs | {"device": "cpu"})
        return _outputs_on_gpu(out, target.index or 0)
    if func is torch.Tensor.data.__set__ and gpus:
        return _set_data(func, *args)
    if gpus and target is None:
        _refuse_mixtures(name, args, kwargs, gpus)
        _count(name, args)
    with torch._C.DisableTorchFunction():
        out = func(*args, **kwargs)
    on_gpu = gpus and target is None and name not in _PLAIN
    return _outputs_on_gpu(out, gpus[0]._index) if on_gpu else out


def _count(name, args):
    used["calls"] += name not in _PLAIN and not name.startswith("__get__")
    indices = args[1] if name in ("__getitem__", "__setitem__") else ()
    by_mask = any(tensor.dtype == torch.bool for tensor in _tensors([indices]))
    rounds_as_set = torch.backends.cuda.matmul.fp32_precision != "ieee"
    used["products in whatever precision"] += rounds_as_set and name in _PRODUCTS
    used["waits"] += name in _WAITING or by_mask or (name == "where" and len(args) == 1)


def _move(name, args, kwargs, target):
    source, is_gpu = args[0], isinstance(args[0], GpuTensor)
    if (target.type == _kind[0]) != is_gpu:
        used["copies out" if is_gpu else "copies in"] += 1
        used["waits"] += is_gpu and not kwargs.get("non_blocking", False)
    rest = [arg for arg in args[1:] if not isinstance(arg, str | torch.device | torch.Tensor | bool)]
    rest_named = {key: value for key, value in kwargs.items() if key not in ("device", "non_blocking")}
    with torch._C.DisableTorchFunction():
        plain = source.as_subclass(torch.Tensor) if is_gpu else source
        out = plain.to(*rest, **rest_named) if name == "to" and (rest or rest_named) else plain
        if (target.type == _kind[0]) != is_gpu and out.data_ptr() == plain.data_ptr():
            out = _late(out, is_gpu) if kwargs.get("non_blocking") else out.clone()
    return _on_gpu(out, target.index or 0) if target.type == _kind[0] else out


class Stream:
    """Copies that happen when somebody waits for them, at the latest moment that a GPU might choose."""

    def __init__(self, device=None):
        self._late, self._lock = [], threading.RLock()

    def record_event(self):
        return self  # as an event, that all that is late by then has happened

    def wait_event(self, event):
        event.synchronize()

    def synchronize(self):
        with self._lock:
            while self._late:
                self._late.pop(0)()

    def later(self, copy):
        with self._lock:
            self._late.append(copy)


_default_stream, _own = Stream(), threading.local()


def _current_stream(*_):
    return getattr(_own, "stream", _default_stream)


@contextlib.contextmanager
def _stream(stream):
    before, _own.stream = _current_stream(), stream
    try:
        yield
    finally:
        _own.stream = before


def _late(source, is_gpu):
    """Copy without being waited for: on the stream of the computation, what comes from the CPU is there in time."""
    stream = _current_stream()
    if stream is _default_stream and not is_gpu:
        return source.clone()
    with torch.inference_mode(torch.is_inference_mode_enabled()):
        out = torch.full_like(source, 77)

    def copy():
        with torch.inference_mode(), torch._C.DisableTorchFunction():
            out.copy_(source)

    stream.later(copy)
    return out


class _Runtime:
    """CUDA's runtime: which memory is pinned at the moment."""

    def __init__(self):
        self.pinned = {}

    def cudaHostRegister(self, address, n_bytes, flags):  # noqa: N802 - CUDA's own names
        self.pinned[address] = n_bytes
        return 0

    def cudaHostUnregister(self, address):  # noqa: N802
        del self.pinned[address]
        return 0


#: Address and bytes of memory that is pinned at the moment.
runtime = _Runtime()


def _set_data(func, held, new):
    """Let a parameter go to another device and stay the same object, as ``Module.to`` does."""
    with torch._C.DisableTorchFunction():
        func(held, new)
    if isinstance(new, GpuTensor) and not isinstance(held, GpuTensor):
        held.__class__, held._index, held._is_param = GpuTensor, new._index, isinstance(held, torch.nn.Parameter)
    elif isinstance(held, GpuTensor) and not isinstance(new, GpuTensor):
        held.__class__ = torch.nn.Parameter if getattr(held, "_is_param", False) else torch.Tensor


def _refuse_mixtures(name, args, kwargs, gpus):
    on_cpu = [t for t in _tensors([args, kwargs]) if type(t) in (torch.Tensor, torch.nn.Parameter) and t.dim()]
    devices = {f"{_kind[0]}:{gpu._index}" for gpu in gpus} | ({"cpu"} if on_cpu else set())
    if name not in _MAY_MIX and len(devices) > 1:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {sorted(devices)} (in {name})")
    if name in ("__getitem__", "__setitem__", "index_put_") and not isinstance(args[0], GpuTensor):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


@contextlib.contextmanager
def memory(n_bytes):
    """Let the GPUs run out of memory at any tensor of more than `n_bytes`."""
    _room[0] = n_bytes
    try:
        yield
    finally:
        _room[0] = float("inf")


@contextlib.contextmanager
def pretended(n=2, kind="cuda"):
    """Let torch see `n` devices of a kind, "cuda" or "mps"; yields `used`."""
    run, autocast, cuda = threading.Thread.run, torch.amp.autocast_mode.autocast.__init__, torch.cuda

    def run_in_mode(thread):  # modes are of a thread
        with _Mode():
            run(thread)

    def autocast_on_cpu(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if ":" in device_type:
            raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
        autocast(self, "cpu", dtype=dtype or torch.bfloat16, enabled=enabled, cache_enabled=cache_enabled)

    answers = {
        "is_available": lambda: kind == "cuda",
        "device_count": lambda: n,
        "current_device": lambda: 0,
        "get_device_name": lambda *_: "Pretended GPU",
        "device": lambda _: contextlib.nullcontext(),
        "get_rng_state": lambda device="cuda": (used.update([torch.device(device).index or 0]), torch.zeros(16))[1],
        "Stream": Stream,
        "current_stream": _current_stream,
        "stream": _stream,
        "cudart": lambda: runtime,
        **dict.fromkeys(["_lazy_init", "empty_cache", "synchronize", "set_rng_state"], lambda *_: None),
        **dict.fromkeys(["manual_seed", "manual_seed_all"], lambda *_: None),
    }
    matmul = torch.backends.cuda.matmul
    with contextlib.ExitStack() as stack:
        # What the process has set is not what products are to be made with: each that is made so is counted.
        stack.callback(setattr, matmul, "fp32_precision", matmul.fp32_precision)
        matmul.fp32_precision = "tf32"
        stack.enter_context(mock.patch.object(torch.backends.mps, "is_available", return_value=kind == "mps"))
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(cuda, name, answer))
        stack.enter_context(mock.patch.object(torch.amp.autocast_mode.autocast, "__init__", autocast_on_cpu))
        graphs = "_accelerator_graph_capture_health_check"
        stack.enter_context(mock.patch.object(torch.optim.Optimizer, graphs, return_value=None))
        stack.enter_context(mock.patch.object(threading.Thread, "run", run_in_mode))
        stack.enter_context(_Mode())
        swapped = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects, as on a GPU
        used.clear()
        _kind[0] = kind
        try:
            yield used
        finally:
            _kind[0] = "cuda"
            torch.__future__.set_swap_module_params_on_conversion(swapped)
