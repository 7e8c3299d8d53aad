"""Computations by PyTorch: a network behind its normalisation, eager, compiled, or as a graph for a converter."""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from featx.backbones.layers import structural_copy
from featx.devices import arithmetic
from featx.errors import OptionError

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.recipe import Recipe

#: uint8 images (n, h, w, 3) → one float32 array of rows for each recipe.
Compute = Callable[[np.ndarray], list[np.ndarray]]

#: Folding rounds otherwise; past this relative L2 it is taken for a mistake and left out.
_FOLDING_TOLERANCE = 1e-5


class FromPixels(nn.Module):
    """A truncated network behind its normalisation.

    Parameters
    ----------
    network : torch.nn.Module
        Takes normalised (n, 3, h, w) floats, returns a tuple of rows.
    mean, std : tuple of float
        Per channel, for pixels scaled to 0–1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of uint8 images (n, h, w, 3); their memory is channels-last already."""
        images = pixels.permute(0, 3, 1, 2).float()
        rows: tuple[Tensor, ...] = self.network(((images / 255) - self.mean) / self.std)
        return rows


def from_pixels(backbone: Backbone, recipes: list[Recipe]) -> FromPixels:
    """Return `backbone`, truncated for `recipes`, as a module of uint8 images (n, h, w, 3)."""
    return FromPixels(backbone.network(recipes), backbone.mean, backbone.std).eval()


def blank(recipes: list[Recipe], n: int) -> Tensor:
    """Return `n` uint8 images of the recipes' size, noise from a fixed seed, to try an engine on."""
    frame = recipes[0].frame
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, frame.height, frame.width, 3), dtype=torch.uint8, generator=generator)


def eager(backbone: Backbone, recipes: list[Recipe], device: torch.device, *, briefly: bool = False) -> Compute:
    """Return the eager computation of `recipes` on `device`; `briefly` for a few images, which pay for no folding."""
    if briefly:
        return compute_with(_copy(from_pixels(backbone, recipes)), device, recipes[0].precision)
    tapped = frozenset(f"network.module.{recipe.layer}" for recipe in recipes)
    with arithmetic(torch.device("cpu"), "fp32"):  # bf16 products, if the process has set them, hide what folding does
        network = fold_batch_norm(from_pixels(backbone, recipes), blank(recipes, 1), keep=tapped)
    return compute_with(network, device, recipes[0].precision)


def compute_with(network: nn.Module, device: torch.device, precision: str) -> Compute:
    """Return `network` as a function of numpy arrays, on `device`, computing in `precision`.

    On a GPU two threads may call it: one's images are copied while it computes those of the other.
    """
    network = network.to(device).to(memory_format=torch.channels_last)
    if device.type == "cuda":
        return _compute_on_gpu(network, device, precision)

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode(), arithmetic(device, precision):
            rows = network(torch.from_numpy(pixels).to(device, non_blocking=True))
            return [row.float().cpu().numpy() for row in rows]

    return compute


def _compute_on_gpu(network: nn.Module, device: torch.device, precision: str) -> Compute:
    cuda: Any = torch.cuda
    copying, turn = cuda.Stream(device), threading.Lock()

    def compute(pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode(), arithmetic(device, precision):
            computing = cuda.current_stream(device)
            with cuda.stream(copying):
                images = torch.from_numpy(pixels).to(device, non_blocking=True)
                copied = copying.record_event()
            with turn:  # one batch after the other: two at a time would take twice the memory
                computing.wait_event(copied)
                images.record_stream(computing)  # its memory goes back to the stream of the copies when that is done
                rows = [row.float().to("cpu", non_blocking=True) for row in network(images)]
                done = computing.record_event()
            done.synchronize()  # the rows are here, and `pixels` may be written again
            return [row.numpy() for row in rows]

    return compute


def in_turn(computes: list[Compute]) -> Compute:
    """Return a function that has whichever of `computes` is free do the work; each may be called by two threads."""
    if len(computes) == 1:
        return computes[0]
    free: queue.SimpleQueue[Compute] = queue.SimpleQueue()
    for compute in computes * 2:
        free.put(compute)

    def compute_in_turn(pixels: np.ndarray) -> list[np.ndarray]:
        compute = free.get()
        try:
            return compute(pixels)
        finally:
            free.put(compute)

    return compute_in_turn


def compiled(backbone: Backbone, recipes: list[Recipe], batch_size: int, device: torch.device) -> Compute:
    """Return the compiled computation of `recipes` on `device`. The first batch, which compiles, is run here.

    Raises
    ------
    OptionError
        If it cannot be compiled: no C++ compiler, most often.
    """
    network = export(backbone, recipes, batch_size, device).module()
    # Frozen weights may be folded and laid out for the machine.
    network.compile(options={"freezing": True})
    compute = compute_with(network, device, recipes[0].precision)
    try:
        compute(blank(recipes, batch_size).numpy())
    except torch.cuda.OutOfMemoryError:
        raise  # a smaller batch may fit
    except Exception as error:
        # Dynamo, Inductor and the C++ compiler each have exceptions of their own.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise OptionError(
            f"torch.compile cannot compile {backbone.name} ({reason[:120]}). Type --engine eager."
        ) from error
    return compute


def export(backbone: Backbone, recipes: list[Recipe], batch_size: int, device: torch.device | None = None) -> Any:
    """Return `backbone`, truncated for `recipes`, as a `torch.export.ExportedProgram` of uint8 images.

    Parameters
    ----------
    batch_size : int
        Fixed in the graph.
    device : torch.device, optional
        Where it is to run; the forward that makes the graph runs on the CPU in any case.
    """
    with torch.no_grad():
        program = torch.export.export(_module(backbone, recipes), (blank(recipes, batch_size),), strict=False)
    graph = program.graph_module.graph
    # These hold each tensor to the device and the type it had here, which a GPU and autocast change.
    held = torch.ops.aten._assert_tensor_metadata.default  # noqa: SLF001 - the operator has no other name
    for node in graph.find_nodes(op="call_function", target=held):
        graph.erase_node(node)
    graph.eliminate_dead_code()
    from torch.export.passes import move_to_device_pass

    return program if device is None or device.type == "cpu" else move_to_device_pass(program, device)


def trace(backbone: Backbone, recipes: list[Recipe], batch_size: int) -> Any:
    """Return the same as a `torch.jit.ScriptFunction`: in a fifth of the time, while PyTorch still has it.

    OpenVINO turns either into the same network; it reads this one's operators as they are, and takes an exported
    program's apart first.
    """
    # Of a function, where weights that want no gradient are constants: of a module each part becomes a script.
    module = structural_copy(_module(backbone, recipes))

    def function(pixels: Tensor) -> Any:
        return module(pixels)

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated, and that shapes are constants: they are meant to be
        return torch.jit.trace(function, blank(recipes, batch_size), check_trace=False)  # type: ignore[no-untyped-call]


def _module(backbone: Backbone, recipes: list[Recipe]) -> FromPixels:
    network = backbone.network(recipes)
    network.stops_early = False
    return FromPixels(network, backbone.mean, backbone.std).eval()


# Batch norm folded into the convolution before it: the same function with one pass over memory less.


def fold_batch_norm(network: nn.Module, example: Tensor, *, keep: frozenset[str] = frozenset()) -> nn.Module:
    """Return a copy of `network` in which every batch norm that follows a convolution is folded into it.

    The network itself is returned only where it cannot be copied.

    Which convolution feeds which batch norm is seen in one forward of `example`. That cannot see a function that
    reads the convolution's output as well, so the copy is used only if it computes the same.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; it and its tensors stay as they are.
    example : Tensor
        A batch that `network` takes.
    keep : frozenset of str
        Paths of modules whose own output is wanted: a convolution at their end is not folded into what follows.
    """
    folded = _copy(network)
    if folded is network:
        return network
    with torch.no_grad():  # in inference mode the folded weights could be used nowhere else
        expected, pairs = _watched(folded, example)
        for conv_path, norm_path in pairs:
            if any(_is_within(conv_path, path) and not _is_within(norm_path, path) for path in keep):
                continue
            conv: Any = folded.get_submodule(conv_path)
            norm: Any = folded.get_submodule(norm_path)
            folded.set_submodule(conv_path, fuse_conv_bn_eval(conv, norm))
            folded.set_submodule(norm_path, _without_norm(norm))
        found = folded(example)
    same = all(_close(a, b) for a, b in zip(found, expected, strict=True))
    return folded if same else structural_copy(network)


def _copy(network: nn.Module) -> nn.Module:
    """Return a copy that shares its tensors, or the network itself where that cannot be copied."""
    try:
        return structural_copy(network)
    except Exception:  # noqa: BLE001 - whatever that raises
        return network


def _is_within(path: str, outer: str) -> bool:
    return path == outer or path.startswith(f"{outer}.")


def _watched(network: nn.Module, example: Tensor) -> tuple[tuple[Tensor, ...], list[tuple[str, str]]]:
    """Return what `network` gives, and the paths of (convolution, batch norm) where one's output is the other's input.

    Only those that run once, each, can be folded.
    """
    made: dict[int, tuple[str, Tensor]] = {}
    pairs: dict[str, str] = {}
    n_calls: dict[str, int] = {}

    def conv_hook(path: str) -> Any:
        def hook(_module: nn.Module, _input: Any, output: Tensor) -> None:
            n_calls[path] = n_calls.get(path, 0) + 1
            made[id(output)] = (path, output)  # held, so that no other tensor gets its id

        return hook

    def norm_hook(path: str) -> Any:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            n_calls[path] = n_calls.get(path, 0) + 1
            if id(arguments[0]) in made:
                pairs[made[id(arguments[0])][0]] = path

        return hook

    handles = []
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(conv_hook(path)))
        elif _foldable(module):
            handles.append(module.register_forward_pre_hook(norm_hook(path)))
    rows = network(example)
    for handle in handles:
        handle.remove()
    return rows, [(conv, norm) for conv, norm in pairs.items() if n_calls[conv] == n_calls[norm] == 1]


def _foldable(module: nn.Module) -> bool:
    exact = type(module) is nn.BatchNorm2d or _has_activation(module)
    return exact and isinstance(module, nn.BatchNorm2d) and module.running_var is not None


def _has_activation(module: nn.Module) -> bool:
    """Tell timm's batch norm with an activation inside."""
    return type(module).__name__ == "BatchNormAct2d" and hasattr(module, "act") and hasattr(module, "drop")


def _without_norm(norm: Any) -> nn.Module:
    return nn.Sequential(norm.drop, norm.act) if _has_activation(norm) else nn.Identity()


def _close(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).norm() <= _FOLDING_TOLERANCE * expected.norm())
