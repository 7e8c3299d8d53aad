"""Extraction on a Ray cluster: the table that one machine makes, whoever dies on the way."""

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_backbone import read_record

import featx
from featx.errors import ClusterError, OptionError

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'featx[ray]'")

N, BATCH = 96, 8
TOY = {"backbone": "toy_backbone:network", "version": "1", "image_size": 32, "normalize": "unit"}
TOY |= {"engine": "eager", "batch_size": BATCH}
HERE = str(Path(__file__).parent)
#: The same on the command line.
TYPED = ["--backbone=toy_backbone:network", "--backbone-version=1", "--image-size=32", "--normalize=unit"]
TYPED += ["--engine=eager", f"--batch-size={BATCH}", "--workers=0"]


class Nodes:
    """A Ray cluster of two nodes of one core each, both on this machine; the driver is on the first."""

    def __init__(self, folder: Path) -> None:
        self.toy = folder / "toy"
        self.toy.mkdir()
        self.env = {
            "FEATX_TOY_FOLDER": str(self.toy),
            "PYTHONPATH": os.pathsep.join([HERE, *filter(None, sys.path)]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": str(folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "300",
        }
        with self.environment():
            import ray
            from ray.cluster_utils import Cluster

            self._cluster = Cluster()
            self.first, self.second = self.add(include_dashboard=False), self.add()
            with contextlib.chdir(folder):  # workers look for modules in the driver's folder first
                ray.init(address=self._cluster.address, log_to_driver=False, logging_level=logging.ERROR)

    @contextlib.contextmanager
    def environment(self, **more):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (self.env | more).items():
                patch.setenv(name, value)
            yield

    @property
    def address(self):
        return self._cluster.address

    def add(self, **options):
        return self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20, **options)

    def kill(self, node):
        """Kill all processes of a node at once."""
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self):
        import ray

        ray.shutdown()
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def cluster():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    folder = Path(tempfile.mkdtemp(prefix="fx", dir="/tmp"))  # sockets below it: their paths must be short
    nodes = Nodes(folder)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    yield nodes
    nodes.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(cluster):
    """The cluster with two living nodes, and nothing in the folder of the toy backbone."""
    if cluster.second is None:
        with cluster.environment():
            cluster.second = cluster.add()
    for path in cluster.toy.iterdir():
        path.unlink()
    return cluster


@pytest.fixture(scope="session")
def noise(tmp_path_factory):
    """A folder of small PNGs in two classes."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for i in range(N):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 200, (34, 36, 3), dtype=np.uint8)).save(folder / "ab"[i % 2] / f"{i:03}.png")
    return folder


@pytest.fixture(scope="session")
def local(noise, tmp_path_factory):
    """The table that this machine makes alone."""
    sys.path.insert(0, HERE)
    return featx.extract(noise, cache=tmp_path_factory.mktemp("local"), workers=0, **TOY)


def assert_same(table, local):
    np.testing.assert_array_equal(table.X, local.X)
    np.testing.assert_array_equal(table.y, local.y)
    assert table.ids.tolist() == local.ids.tolist()
    assert table.key == local.key


def redone(folder):
    """Count batches that were computed again."""
    return sum(n - 1 for n in Counter(line.split()[1] for line in read_record(folder)).values())


def once(condition, action):
    """Return a `on_progress` that acts the first time that the condition holds."""
    acted = []

    def on_progress(progress):
        if progress.step == "extract" and not acted and condition():
            acted.append(True)
            action()

    return on_progress


@needs_ray
def test_nodes_make_the_table_that_one_machine_makes_though_a_worker_is_killed(nodes, noise, local, tmp_path):
    (nodes.toy / "together").write_text("2")
    ray = featx.RayCluster()
    kill = once(lambda: ray.done, lambda: os.kill(ray.done[0].pid, signal.SIGKILL))

    table = featx.extract(noise, cache=tmp_path / "cache", cluster=ray, workers=0, on_progress=kill, **TOY)

    assert_same(table, local)
    assert len({line.split()[0] for line in read_record(nodes.toy)}) >= 2
    assert {done.node for done in ray.done} <= {nodes.first.node_id, nodes.second.node_id}
    assert os.getpid() not in {done.pid for done in ray.done}
    assert redone(nodes.toy) <= 1
    assert sum(done.rows for done in ray.done) <= N
    assert not list((tmp_path / "cache" / ".notes").glob("cluster-*"))


@needs_ray
def test_a_killed_node_costs_the_segment_it_had_in_hand(nodes, noise, local, tmp_path):
    (nodes.toy / "together").write_text("2")
    ray, second = featx.RayCluster(), nodes.second

    def kill():
        nodes.kill(second)
        nodes.second = None

    on_progress = once(lambda: any(done.node == second.node_id for done in ray.done), kill)
    table = featx.extract(noise, cache=tmp_path / "cache", cluster=ray, workers=0, on_progress=on_progress, **TOY)

    assert_same(table, local)
    assert {done.node for done in ray.done} == {nodes.first.node_id, second.node_id}
    assert redone(nodes.toy) <= 1


@needs_ray
def test_a_driver_that_dies_and_returns_redoes_what_was_in_hand(nodes, noise, local, tmp_path, start):
    (nodes.toy / "together").write_text("3")  # of two workers, both stay at their first segment
    command = [sys.executable, "-m", "featx", "extract", noise, *TYPED]
    with nodes.environment():
        driver = start([*map(str, command), f"--cluster=ray:{nodes.address}", f"--cache={tmp_path / 'cache'}"])
    deadline = time.monotonic() + 200
    while len(read_record(nodes.toy)) < 2 and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.1)
    driver.kill()
    assert len(read_record(nodes.toy)) == 2, driver.communicate()[1]
    (nodes.toy / "together").unlink()

    ray = featx.RayCluster()
    table = featx.extract(noise, cache=tmp_path / "cache", cluster=ray, workers=0, **TOY)

    assert_same(table, local)
    assert redone(nodes.toy) <= 2
    assert len(read_record(nodes.toy)) <= N // BATCH + 2


@needs_ray
def test_images_that_cost_one_worker_after_another_end_the_run(nodes, noise, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.cluster.scheduler.MOST_TRIES", 2)
    (nodes.toy / "deadly").touch()
    shutil.copytree(noise, tmp_path / "noise")
    white = np.random.default_rng(1).integers(245, 256, (34, 36, 3), dtype=np.uint8)
    Image.fromarray(white).save(tmp_path / "noise" / "a" / "000.png")

    with pytest.raises(ClusterError, match=r"2 workers were lost .* the same 8 images, from a/000\.png on"):
        featx.extract(tmp_path / "noise", cache=tmp_path / "cache", cluster=featx.RayCluster(), workers=0, **TOY)


@needs_ray
def test_a_driver_outside_of_the_cluster_works_through_ray_client(nodes, noise, local, tmp_path, start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = [sys.executable, "-m", "ray.util.client.server", "--mode=legacy", f"--address={nodes.address}"]
    with nodes.environment():
        serving = start([*server, "--host=127.0.0.1", f"--port={port}"])
        deadline = time.monotonic() + 100
        while not is_open(port) and serving.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        where = [f"--cluster=ray://127.0.0.1:{port}", f"--cache={tmp_path / 'cache'}"]
        asking = (
            "from featx.cluster import scheduler; scheduler.POLL_SECONDS = 0.01"  # for progress, before all is done
        )
        done = run_featx("extract", noise, *TYPED, *where, "--json", code=asking)

    assert done.returncode == 0, done.stderr
    assert_same(featx.Features.open(json.loads(done.stdout)["tables"][0]["path"]), local)
    assert len(read_record(nodes.toy)) == N // BATCH


def is_open(port):
    with socket.socket() as knocking:
        return knocking.connect_ex(("127.0.0.1", port)) == 0


@needs_ray
def test_a_node_with_other_versions_is_named(nodes, noise, tmp_path):
    shutil.copytree(Path(featx.__file__).parent, tmp_path / "featx")
    face = (tmp_path / "featx" / "__init__.py").read_text()
    (tmp_path / "featx" / "__init__.py").write_text(face.replace(f'"{featx.__version__}"', '"0.0.1"'))
    path = os.pathsep.join([str(tmp_path), nodes.env["PYTHONPATH"]])
    with nodes.environment(PYTHONPATH=path):
        other = nodes.add(env_vars={"PYTHONPATH": path})

    with pytest.raises(ClusterError, match=rf"has featx 0\.0\.1 \(here {featx.__version__}\)\. Install the same"):
        featx.extract(noise, cache=tmp_path / "cache", cluster=featx.RayCluster(), **TOY)
    nodes.kill(other)


@needs_ray
def test_a_cache_folder_that_a_node_does_not_see_is_named(nodes, noise, tmp_path, monkeypatch):
    """``/proc/self/cwd`` is another folder for every process, as a disk that is not shared is for every machine."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ClusterError, match=r"does not see the cache folder /proc/self/cwd/cache.*--cache DIR"):
        featx.extract(noise, cache="/proc/self/cwd/cache", cluster=featx.RayCluster(), **TOY)


@needs_ray
def test_images_that_a_node_does_not_see_are_named(nodes, noise, tmp_path, monkeypatch):
    shutil.copytree(noise, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ClusterError, match=r"does not see the images: .*/proc/self/cwd/mine.* all nodes share"):
        featx.extract("/proc/self/cwd/mine", cache=tmp_path / "cache", cluster=featx.RayCluster(), **TOY)


@needs_ray
def test_images_in_memory_are_refused_before_a_cluster_is_reached(tmp_path):
    images = np.zeros((3, 32, 32, 3), dtype=np.uint8)

    with pytest.raises(OptionError, match="every node reads the images itself"):
        featx.extract(images, cache=tmp_path / "cache", cluster=featx.RayCluster("nowhere:1"), **TOY)


def test_what_is_no_cluster_is_refused(tmp_path):
    from featx.cluster.ray_cluster import parse_address

    for text in ("dask", "ray:", "ray://", "auto"):
        with pytest.raises(OptionError, match="--cluster takes ray, ray://auto"):
            parse_address(text)


def run_featx(*arguments, code="", **options):
    """Run the command line in a process of its own, after `code`."""
    program = f"{code}\nimport sys; from featx.cli import main; sys.exit(main({list(map(str, arguments))!r}))"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, **options)


def test_without_ray_the_command_that_installs_it_is_printed(photos, tmp_path):
    missing = "import sys; sys.modules['ray'] = None"

    done = run_featx("extract", photos, "--cluster", "ray", "--cache", tmp_path / "cache", "--json", code=missing)

    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["type"] == "MissingExtraError"
    assert done.stderr.strip().endswith("pip install 'featx[ray]'")


@needs_ray
def test_no_cluster_to_be_found_is_one_line_that_says_how_to_start_one(photos, tmp_path):
    done = run_featx("extract", photos, "--cluster=ray:127.0.0.1:9", f"--cache={tmp_path / 'cache'}")

    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("Error: No Ray cluster can be reached at 127.0.0.1:9: ")
    assert "ray start --head" in done.stderr
