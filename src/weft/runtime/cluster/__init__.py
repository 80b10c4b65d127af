"""An uneven cluster on one host: ranks with a share of a core and a network way of their own.

Every rank is a process in a network namespace of its own, behind a shaped link to a switch, and
in a control group that gives it a part of a core. To the ranks it is a cluster of hosts.
"""

from weft.runtime.cluster.description import Cluster, ClusterRank, load_cluster
from weft.runtime.cluster.ranks import launch_cluster
from weft.runtime.cluster.standing import Built, built, refusal

__all__ = [
    "Built",
    "Cluster",
    "ClusterRank",
    "built",
    "launch_cluster",
    "load_cluster",
    "refusal",
]
