"""Find clusters of pictures with a clear gap between them: single linkage, cut where the gap is clearest.

In doubt no clusters are found, because wrong advice is worse than none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Distances = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]
CLEAR_GAP = 3.0
"""Least ratio of the distance between clusters to the distance between neighbours within them (95th percentile)."""
SMALLEST, SMALLEST_SHARE = 6, 0.05
"""Least size of a cluster: pictures, and share of all pictures."""
MAX_LEFT_OVER = 0.1
"""Largest share of pictures outside all clusters."""


def find_clusters(distances: Distances, floor: float) -> Labels | None:
    """Label each picture with its cluster, -1 outside all; None unless there are two clusters or more with a clear gap.

    `floor`: a distance this small is normal within a cluster, even where the measured ones are smaller.
    """
    count = len(distances)
    smallest = max(SMALLEST, SMALLEST_SHARE * count)
    if count < 2 * smallest:
        return None
    edges = _spanning_tree(distances)
    lengths = np.array([length for length, _, _ in edges])
    best, clearest = None, CLEAR_GAP
    for cut in range(len(edges) - 1, 0, -1):
        within = max(float(np.percentile(lengths[:cut], 95)), floor)
        if lengths[-1] <= clearest * within:
            continue  # no gap is wider than the longest edge
        labels = _components(count, edges[:cut])
        sizes = np.bincount(labels)
        large = sizes >= smallest
        if not large.any():
            break
        if large.sum() < 2 or sizes[~large].sum() > MAX_LEFT_OVER * count:
            continue
        labels = np.where(large[labels], labels, -1)
        between = _least_between(distances, labels)
        if between / within > clearest:
            best, clearest = _add_near(distances, labels, between / 2), between / within
    return None if best is None else _renumber(best)


def _spanning_tree(distances: Distances) -> list[tuple[float, int, int]]:
    """Return the edges of the minimum spanning tree, shortest first (Prim)."""
    count = len(distances)
    nearest, parent = distances[0].copy(), np.zeros(count, np.intp)
    outside = np.ones(count, np.bool_)
    outside[0] = False
    edges = []
    for _ in range(count - 1):
        new = int(np.where(outside, nearest, np.inf).argmin())
        edges.append((float(nearest[new]), int(parent[new]), new))
        outside[new] = False
        closer = outside & (distances[new] < nearest)
        nearest[closer], parent[closer] = distances[new][closer], new
    return sorted(edges)


def _components(count: int, edges: list[tuple[float, int, int]]) -> Labels:
    """Label each picture with the connected component that these edges put it in."""
    label = np.arange(count)
    for _, first, second in edges:
        if label[first] != label[second]:
            label[label == label[second]] = label[first]
    return np.asarray(np.unique(label, return_inverse=True)[1], np.intp)


def _least_between(distances: Distances, labels: Labels) -> float:
    """Return the least distance between pictures of different clusters."""
    inside = labels >= 0
    differ = (labels[:, None] != labels[None, :]) & inside[:, None] & inside[None, :]
    return float(distances[differ].min())


def _add_near(distances: Distances, labels: Labels, limit: float) -> Labels:
    """Add each picture outside all clusters to the cluster of its nearest neighbour, if that is nearer than the limit."""
    inside = np.flatnonzero(labels >= 0)
    nearest = inside[distances[:, inside].argmin(axis=1)]
    is_near = (labels < 0) & (distances[np.arange(len(labels)), nearest] < limit)
    return np.where(is_near, labels[nearest], labels)


def _renumber(labels: Labels) -> Labels:
    """Number clusters by size, the largest first."""
    sizes = np.bincount(labels[labels >= 0])
    order = {int(label): rank for rank, label in enumerate(np.argsort(-sizes)) if sizes[label]}
    return np.array([order.get(int(label), -1) for label in labels], np.intp)
