"""A Ray cluster to work on. The only room that starts or joins Ray.

connection   a cluster for the time of a ``with``
checks       whether a cluster can be worked on, with clear errors
look         what is at an address; a process of its own
mapping      a function over items on all nodes, with Ray Data
"""

from dlpipe.cluster.connection import Cluster, find, join, start
from dlpipe.cluster.mapping import Surroundings

__all__ = ["Cluster", "Surroundings", "find", "join", "start"]
