"""Processes that are launched together share the work: each has its rows computed once, and the table is whole."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pretended_gpu
import pytest
from PIL import Image
from toy_backbone import read_record

import featx
from featx.errors import OptionError
from featx.extraction import Rank

BATCH = 8
OPTIONS = ["--image-size=32", f"--batch-size={BATCH}", "--workers=0", "--engine=eager", "--json"]


def noise(folder, n):
    rng = np.random.default_rng(0)
    (folder / "a").mkdir(parents=True)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (34, 36, 3), dtype=np.uint8)).save(folder / "a" / f"{i:03}.png")
    return folder


def test_ranks_begin_with_their_own_share_and_together_do_everything(monkeypatch):
    shares = list(range(10))
    orders = [Rank(number, 3).own_first(shares) for number in range(3)]

    assert [order[:3] for order in orders] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert all(sorted(order) == shares for order in orders)


def test_a_rank_is_read_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert Rank.here() == Rank(0, 1)

    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")

    assert Rank.here() == Rank(3, 4)


def test_torchrun_shares_the_images_out_and_one_rank_speaks_for_all(tmp_path):
    """Every process waits in its first batch until the other has one, so both do work however slow one starts."""
    source, toy = noise(tmp_path / "noise", 64), tmp_path / "toy"
    toy.mkdir()
    (toy / "together").write_text("2")
    here = str(Path(__file__).parent)
    env = os.environ | {"FEATX_TOY_FOLDER": str(toy), "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])}
    command = [
        "-m",
        "featx",
        "extract",
        source,
        "--backbone=toy_backbone:network",
        "--backbone-version=1",
        f"--cache={tmp_path / 'cache'}",
    ]

    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *command, *OPTIONS],
        env=env, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    lines = [line.split() for line in read_record(toy)]
    assert len({process for process, _ in lines}) == 2
    assert set(Counter(batch for _, batch in lines).values()) == {1}
    assert len(lines) == 64 // BATCH
    assert 0 < result["computed"] < 64

    how = {"image_size": 32, "batch_size": BATCH, "workers": 0, "engine": "eager", "version": "1"}
    alone = featx.extract(source, backbone="toy_backbone:network", cache=tmp_path / "alone", **how)
    np.testing.assert_array_equal(featx.Features.open(result["tables"][0]["path"]).X, alone.X)


ARRAYS = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
NETWORK = {"backbone": "timm/test_resnet", "weights": "none", "image_size": 32, "workers": 0, "engine": "eager"}


@pytest.mark.parametrize("devices", ["all", "2", "1,0"])
def test_all_gpus_of_a_machine_give_the_table_of_one(tmp_path, devices):
    with pretended_gpu.pretended(2) as used:
        one = featx.extract(ARRAYS, cache=tmp_path / "one", device="cuda:1", batch_size=4, **NETWORK)
        assert not used[0]
        several = featx.extract(ARRAYS, cache=tmp_path / "several", devices=devices, batch_size=4, **NETWORK)

        assert used[0]
    assert list(several.ids) == list(one.ids)
    np.testing.assert_array_equal(several.X, one.X)


@pytest.mark.parametrize(
    ("how", "n", "message"),
    [
        ({"devices": "all"}, 0, "torch sees 0 CUDA devices here. Leave it out"),
        ({"devices": "3"}, 2, "--devices 3 is not there: torch sees 2, 0 to 1. Type all."),
        ({"devices": "0,2"}, 2, "--devices 0,2 is not there"),
        ({"devices": "0"}, 2, "--devices 0 is not there"),
        ({"devices": "0,0"}, 2, "--devices takes all, a number of GPUs, or some of them as 0,1; got '0,0'"),
        ({"devices": "both"}, 2, "--devices takes all"),
        ({"devices": "all", "device": "cuda:1"}, 2, "--devices names GPUs, and so does --device cuda:1"),
        ({"devices": "all", "engine": "openvino"}, 2, "--engine openvino runs on the CPU"),
    ],
)
def test_gpus_that_cannot_be_had_are_refused_with_what_to_type(tmp_path, how, n, message):
    with pretended_gpu.pretended(n), pytest.raises(OptionError, match=re.escape(message)):
        featx.extract(ARRAYS, cache=tmp_path, **NETWORK | how)


def test_gpus_are_shared_out_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pretended_gpu.pretended(2), pytest.raises(OptionError, match="so does what started this process"):
        featx.extract(ARRAYS, cache=tmp_path, devices="all", **NETWORK)
