"""Extraction on several machines: a Ray cluster computes the segments that one machine would have computed.

Names and hashes travel to the nodes, counts and reasons come back; pixels are read, and features
committed, by the nodes themselves in folders that all of them see. To be read in this order: `ray_cluster` (reach a
cluster), `scheduler` (segments are handed out until all are done), `pool` (workers come and go), `worker` (what is
sent to a node, and what runs there).
"""

from featx.cluster.ray_cluster import RayCluster
from featx.cluster.worker import Done

__all__ = ["Done", "RayCluster"]
