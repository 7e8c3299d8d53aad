"""Extraction on several machines: a Ray cluster computes the segments that one machine would have computed.

Names and hashes travel to the nodes, counts and reasons come back; pixels are read, and features
committed, by the nodes themselves in folders that all of them see. `connection` (reach a cluster), `work`
(what travels), `worker` (what runs on a node), `crew` (workers come and go), `shift` (segments are handed
out until all are done).
"""

from featx.cluster.ray_cluster import RayCluster
from featx.cluster.work import Done

__all__ = ["Done", "RayCluster"]
