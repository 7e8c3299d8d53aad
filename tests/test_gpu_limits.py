"""What computing on a GPU may cost in copies and waits, what becomes of memory that runs out, and that we would notice.

All on the second of two pretended GPUs. At the end the code is broken in ways that a CPU does not show: each must be
caught by one of the checks above.
"""

import functools
import importlib
import inspect
import sys
import textwrap

import numpy as np
import pretended_gpu
import pytest
import test_engines
from sklearn.datasets import load_digits

from featx.engines import open_engine
from featx.heads import CentroidHead, DenseHead, KNNHead, LogisticHead, LogisticHeadCV, RidgeHead, XGBoostHead
from featx.heads.inputs import read_training

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)
GPU = "cuda:1"


class Trees(XGBoostHead):
    """The part of it that torch computes: XGBoost itself knows no pretended GPU."""

    def fit(self, X, y):
        training = read_training(self, X, y)
        self.mean_, self.projection_ = self._learn_projection(training)
        self.rows_ = np.concatenate([batch["data"] for batch in self._batches(training)])
        return self


#: Heads, and what tells whether two of them are the same.
HEADS = {
    "logistic": (LogisticHead(), lambda head: head.predict_proba(X)),
    "path": (LogisticHeadCV(Cs=2, cv=2), lambda head: head.predict_proba(X)),
    "dense": (DenseHead(hidden=16, epochs=3, random_state=0), lambda head: head.predict_proba(X)),
    "neighbors": (KNNHead(), lambda head: head.kneighbors(X)[0]),
    "centroid": (CentroidHead(), lambda head: head.centroids_),
    "ridge": (RidgeHead(alpha=(1, 10)), lambda head: head.coef_),
    "trees": (Trees(components=5), lambda head: head.rows_),
}


@pytest.fixture(autouse=True)
def used(monkeypatch):
    monkeypatch.setattr("featx.heads.inputs.BLOCK_BYTES", 400_000)  # of 460,032 in the table
    monkeypatch.setattr("featx.heads.neighbors.GPU_TILE", 1 << 17)
    with pretended_gpu.pretended(2) as used:
        yield used


@functools.cache
def on_cpu(name):
    """Return what an engine or a head computes on the CPU."""
    return features("fp32", "cpu") if name in ("fp32", "bf16") else head_and_numbers(name, "cpu")[1]


def features(precision, device, used=None):
    resolved = test_engines.resolved(layers=("layer2",), precision=precision)
    engine = open_engine(*resolved, engine="eager", device=device, batch_size=4)
    if used is not None:
        used.clear()
    return engine.run(test_engines.images(12))[0]


def head_and_numbers(name, device):
    head, numbers = HEADS[name]
    head = head.__class__(**head.get_params() | {"device": device}).fit(X, Y)
    return head, numbers(head)


def check(name, used, caplog=None):
    """Compute it on the second GPU, and hold it against the CPU and against what it may cost."""
    if name.startswith("memory"):
        check_memory(caplog, name.split()[1:] or HEADS.keys() - {"path"})
    elif name in ("fp32", "bf16"):
        check_engine(used, name)
    else:
        check_head(used, name)
    assert not used[0]
    assert not used["products in whatever precision"]


def check_engine(used, precision):
    expected = on_cpu(precision)
    found = features(precision, GPU, used)

    assert used["copies in"] == used["copies out"] == 3
    assert used["waits"] == 0  # but for the event that the last of them is done
    assert test_engines.distance(found, expected) <= (1e-5 if precision == "fp32" else 1e-2)


#: By head: most copies in, waits and calls, in all; for those with steps also a step, and how many steps at least.
LIMITS = {
    "logistic": ((8, 12, 200), (0, 0.8, 350), 15),
    "path": ((12, 30, 400), (0, 2.5, 1200), 5),
    "dense": ((12, 10, 100), (0, 0, 40), 24),
    "neighbors": ((60, 120, 500), (0, 0, 0), 0),
    "centroid": ((4, 2, 20), (0, 0, 0), 0),
    "ridge": ((30, 7, 90), (0, 0, 0), 0),
    "trees": ((40, 8, 40), (0, 0, 0), 0),
}


def check_head(used, name):
    expected = on_cpu(name)
    used.clear()
    head, found = head_and_numbers(name, GPU)

    assert used[1]
    np.testing.assert_allclose(found, expected, atol=2e-3 * abs(expected).max())
    n_steps = 24 if name == "dense" else getattr(head, "n_iter_", 0)
    whole, each, least = LIMITS[name]
    print(n_steps, dict(used))  # shown where they are beyond their limits
    assert n_steps >= least
    for kind, all_of_them, a_step in zip(("copies in", "waits", "calls"), whole, each, strict=True):
        assert used[kind] <= all_of_them + a_step * n_steps, kind


def check_memory(caplog, names):
    for name in names:
        expected = on_cpu(name)
        for room, said in ((300_000 if name != "logistic" else 450_000, 1), (0, 4)):
            caplog.clear()
            with pretended_gpu.memory(room):
                _, found = head_and_numbers(name, GPU)
            assert len(caplog.messages) >= said
            assert f"The memory of {GPU} ran out: trying 2 parts, one after another." in caplog.messages
            assert (f"The memory of {GPU} ran out: the CPU goes on." in caplog.messages) == (room == 0)
            np.testing.assert_allclose(found, expected, atol=2e-3 * abs(expected).max())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_engine_copies_each_batch_once_and_waits_for_nothing_else(used, precision):
    check(precision, used)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_waits_and_copies_no_more_than_it_must_and_finds_what_a_cpu_finds(used, name):
    check(name, used)


def test_memory_that_runs_out_costs_time_and_a_line_and_no_result(used, caplog):
    check("memory", used, caplog)


def test_a_batch_that_was_asked_for_and_does_not_fit_is_halved_and_said(caplog):
    resolved = test_engines.resolved(layers=("layer2",))
    with pretended_gpu.memory(2_000_000):
        engine = open_engine(*resolved, engine="eager", device=GPU, batch_size=64)

    assert 1 <= engine.batch_size < 64
    assert caplog.messages == [f"A batch of 64 does not fit the memory of {GPU}: it has {engine.batch_size}."]


PLACE = '"cpu" if device and n_parts > 1 else device'
PYTORCH, SOLVER, TRAINING = "featx.engines.pytorch:", "featx.heads.solver:", "featx.heads.training:Trainer."


@pytest.mark.parametrize(
    ("where", "old", "new", "what"),
    [
        (PYTORCH + "compute_with", "network.to(device)", "network.to(device.type)", "fp32"),
        (PYTORCH + "_compute_on_gpu", "pixels).to(device, non_blocking=True)", "pixels)", "fp32"),
        (PYTORCH + "_compute_on_gpu", '.to("cpu", non_blocking=True)', "", "fp32"),
        (PYTORCH + "_compute_on_gpu", "row.float()", "row.float().cpu().to(device)", "fp32"),
        (PYTORCH + "_compute_on_gpu", "done.synchronize()", "pass", "fp32"),
        (PYTORCH + "_compute_on_gpu", "computing.wait_event(copied)", "pass", "fp32"),
        ("featx.devices:arithmetic", "torch.autocast(device.type", "torch.autocast(str(device)", "bf16"),
        (SOLVER + "Problem.zeros", "self._placed(", "as_tensor(device='cpu', X=", "logistic"),
        (
            SOLVER + "_floor",
            "xp.asarray(values.max(), dtype=xp.float64)",
            "xp.asarray(float(values.max()), dtype=xp.float64)",
            "logistic",
        ),
        (SOLVER + "Minimiser._minimise", "else STRIDE", "else 1", "logistic"),
        (SOLVER + "_line_search", "attempt + 1 == attempts or ", "", "logistic"),
        ("featx.heads.networks:TableBatches.__init__", PLACE, '"cuda"', "dense"),
        ("featx.heads.training:forked_seeds", '[device] if torch.device(device).type == "cuda" else []', "", "dense"),
        (TRAINING + "_step", "torch.zeros(3, device=self.device)", "torch.zeros(3)", "dense"),
        (TRAINING + "_step", "self.scaler.update()", "self.scaler.update() or sums.tolist()", "dense"),
        ("featx.heads.neighbors:KNNHead._nearest", "best[:, -1:])", "best[:, -1:]).cpu()", "neighbors"),
        ("featx.heads.moments:second_moment", "gram += A.T @ A", "gram += like(to_numpy(A.T @ A), A)", "ridge"),
        ("featx.devices:within_memory", 'compute("cpu", 1)', "compute(device, 1)", "memory ridge"),
        ("featx.devices:within_memory", 'with arithmetic(torch.device(device), "fp32")', "if True", "ridge"),
        ("featx.devices:within_memory", "log.warning(", "log.debug(", "memory ridge"),
        ("featx.heads.networks:TableBatches.__init__", PLACE, "device", "memory dense"),
    ],
)
def test_broken_code_is_caught(monkeypatch, used, caplog, where, old, new, what):
    on_cpu(what.removeprefix("memory "))
    mutate(monkeypatch, where, old, new)
    with pytest.raises((AssertionError, RuntimeError, TypeError, UserWarning)):
        check(what, used, caplog)


def mutate(monkeypatch, where, old, new):
    """Put `new` for `old` into the function at ``module:qualified.name``, wherever it was imported to."""
    module, _, path = where.partition(":")
    module = importlib.import_module(module)
    *outer, name = path.split(".")
    owner = getattr(module, outer[0]) if outer else module
    function = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    assert old in source
    found = {}
    exec("from __future__ import annotations\n" + source.replace(old, new), vars(module), found)
    owners = [owner] if outer else [m for n, m in sys.modules.items() if n.startswith("featx") and hasattr(m, name)]
    for owner in owners:
        if getattr(owner, name) is function:
            monkeypatch.setattr(owner, name, found[name])
