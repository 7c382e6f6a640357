"""The inner loops of resampling, stitching and labelling, compiled with numba; `tensor_loops` has the same in torch.

Both give the same numbers bit for bit: every sum here is written in one order, of single products and sums in float32,
and numba fuses none of them. No loop holds the GIL, so that parts of a grid can run on several threads.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, int64, njit, types, uint8, uint16, void

from effvit_med.transforms.decision import Decision

_HIGHEST, _LAST = int(Decision.HIGHEST), int(Decision.LAST)
_OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}


def _any(item: types.Type, dimensions: int) -> types.Array:
    return types.Array(item, dimensions, "A")


_LINE = (int64[::1], float32[:, ::1])
_NODES = (float32[:, :, :, ::1], uint16[:, :, ::1], float32[:, :, ::1])
_TABLES = (uint16[::1], uint8[::1], float32, int64)


@njit(
    [
        void(types.Array(item, 3, "C", readonly=True), *_LINE, *_LINE, float32[:, :, ::1])
        for item in (types.int16, types.uint8, types.uint16, types.int32, types.float32)
    ],
    **_OPTIONS,
)
def resample_planes(values, first1, weights1, first2, weights2, out):
    """Weighted sums along axis 1, then along axis 2, of each plane of axis 0."""
    line = np.empty(values.shape[2], np.float32)
    for plane in range(out.shape[0]):
        for i in range(out.shape[1]):
            weight, row = weights1[i, 0], values[plane, first1[i]]
            for x in range(row.size):
                line[x] = weight * np.float32(row[x])
            for tap in range(1, weights1.shape[1]):
                weight, row = weights1[i, tap], values[plane, first1[i] + tap]
                for x in range(row.size):
                    line[x] = line[x] + weight * np.float32(row[x])
            for j in range(out.shape[2]):
                start = first2[j]
                total = weights2[j, 0] * line[start]
                for tap in range(1, weights2.shape[1]):
                    total = total + weights2[j, tap] * line[start + tap]
                out[plane, i, j] = total


@njit(void(float32[:, ::1], int64[::1], float32[:, ::1], float32[:, ::1]), **_OPTIONS)
def resample_rows(values, first, weights, out):
    """Weighted sums of whole rows: (rows, n) values into (out rows, n)."""
    for i in range(out.shape[0]):
        weight, row = weights[i, 0], values[first[i]]
        for x in range(row.size):
            out[i, x] = weight * row[x]
        for tap in range(1, weights.shape[1]):
            weight, row = weights[i, tap], values[first[i] + tap]
            for x in range(row.size):
                out[i, x] = out[i, x] + weight * row[x]


@njit(
    void(_any(float32, 4), float32[:, :, :, ::1], float32[::1], float32[::1], float32[::1]),
    **_OPTIONS,
)
def add_window(total, logits, weight0, weight1, weight2):
    """Add the logits of a window, each voxel with its weight; both (rows, lines, columns, classes)."""
    for i in range(logits.shape[0]):
        for j in range(logits.shape[1]):
            plane = weight0[i] * weight1[j]
            for k in range(logits.shape[2]):
                weight = plane * weight2[k]
                for c in range(logits.shape[3]):
                    total[i, j, k, c] = total[i, j, k, c] + logits[i, j, k, c] * weight


@njit(types.Tuple((int64, float32))(float32[::1], int64[::1], int64, int64), **_OPTIONS)
def decide_marks(scores, chosen, count, decision):
    """The number and the margin that the first ``count`` scores make by LAST or EACH; their classes rise."""
    number, margin = 0, np.float32(np.inf)
    for q in range(count):
        score = scores[q]
        if decision == _LAST:
            if score > 0:
                number, margin = chosen[q] + 1, score
            else:
                margin = min(margin, -score)
        else:
            margin = min(margin, abs(score))
            if score > 0:
                number = number | (1 << chosen[q])
    return number, margin


@njit(boolean(*_NODES, int64), **_OPTIONS)
def find_best(nodes, top, lead, decision):
    """The number of each node by a `Decision`, and its margin; False if a score is not finite."""
    finite = True
    chosen = np.arange(nodes.shape[3])
    for i in range(nodes.shape[0]):
        for j in range(nodes.shape[1]):
            for k in range(nodes.shape[2]):
                best, second, who = nodes[i, j, k, 0], np.float32(-np.inf), 0
                total = best
                for c in range(1, nodes.shape[3]):
                    value = nodes[i, j, k, c]
                    total = total + value
                    if value > best:
                        second, best, who = best, value, c
                    elif value > second:
                        second = value
                if decision == _HIGHEST:
                    top[i, j, k], lead[i, j, k] = who, best - second
                else:
                    top[i, j, k], lead[i, j, k] = decide_marks(nodes[i, j, k], chosen, chosen.size, decision)
                finite = finite and np.isfinite(total)
    return finite


@njit(boolean(uint16[:, :, ::1], float32[:, :, ::1], int64, int64, int64, int64, int64, int64, float32), **_OPTIONS)
def is_clear(top, lead, i0, i1, j0, j1, k0, k1, sure):
    """Whether eight nodes have the same best class, each by at least that lead."""
    for corner in range(8):
        i = i1 if corner & 4 else i0
        j = j1 if corner & 2 else j0
        k = k1 if corner & 1 else k0
        if top[i, j, k] != top[i0, j0, k0] or lead[i, j, k] < sure:
            return False
    return True


@njit(
    int64(
        float32[:, :, :, ::1], int64, int64, int64, int64, int64, int64, float32[::1], float32[::1], int64[::1],
        float32, int64
    ),
    **_OPTIONS,
)  # fmt: skip
def choose_classes(nodes, i0, i1, j0, j1, k0, k1, lowest, highest, chosen, sure, decision):
    """How many classes can matter between eight nodes; their numbers, rising, go into ``chosen``."""
    classes = nodes.shape[3]
    for c in range(classes):
        lowest[c] = highest[c] = nodes[i0, j0, k0, c]
    for corner in range(1, 8):
        i = i1 if corner & 4 else i0
        j = j1 if corner & 2 else j0
        k = k1 if corner & 1 else k0
        for c in range(classes):
            lowest[c] = min(lowest[c], nodes[i, j, k, c])
            highest[c] = max(highest[c], nodes[i, j, k, c])
    best, second = np.float32(-np.inf), np.float32(-np.inf)
    for c in range(classes):
        if lowest[c] > best:
            second, best = best, lowest[c]
        elif lowest[c] > second:
            second = lowest[c]
    if decision != _HIGHEST:
        second = -sure  # what is lower everywhere is not there, and that for certain
    # by more than rounding; with HIGHEST, two classes are above a dropped one at all corners
    least = second - np.float32(1e-4) * (np.float32(1) + abs(second))
    count = 0
    for c in range(classes):
        if highest[c] >= least:
            chosen[count] = c
            count += 1
    return count


@njit(
    [
        void(
            *_NODES,
            int64[:, ::1], int64[:, ::1], int64[:, ::1],
            float32[::1], float32[::1], float32[::1],
            *_TABLES,
            _any(item, 3), _any(uint8, 3),
        )
        for item in (uint8, uint16)
    ],
    **_OPTIONS,
)  # fmt: skip
def label_cells(
    nodes, top, lead, runs0, runs1, runs2, part0, part1, part2, values, levels, sure, decision, labels, confidence
):  # fmt: skip
    """Labels and confidence of the voxels that lie between nodes, cell by cell; a run is (start, stop, low, high)."""
    classes = nodes.shape[3]
    lowest, highest = np.empty(classes, np.float32), np.empty(classes, np.float32)
    chosen = np.empty(classes, np.int64)
    planes, lines = np.empty((classes, 4), np.float32), np.empty((classes, 2), np.float32)
    scores = np.empty(classes, np.float32)
    one = np.float32(1)
    for r0 in range(runs0.shape[0]):
        a0, b0, i0, i1 = runs0[r0]
        for r1 in range(runs1.shape[0]):
            a1, b1, j0, j1 = runs1[r1]
            for r2 in range(runs2.shape[0]):
                a2, b2, k0, k1 = runs2[r2]
                if is_clear(top, lead, i0, i1, j0, j1, k0, k1, sure):
                    value = values[top[i0, j0, k0]]
                    for t0 in range(a0, b0):
                        for t1 in range(a1, b1):
                            for t2 in range(a2, b2):
                                labels[t0, t1, t2] = value
                                confidence[t0, t1, t2] = 255
                    continue
                count = choose_classes(nodes, i0, i1, j0, j1, k0, k1, lowest, highest, chosen, sure, decision)
                for t0 in range(a0, b0):
                    g0 = part0[t0]
                    h0 = one - g0
                    for q in range(count):
                        c = chosen[q]
                        planes[q, 0] = nodes[i0, j0, k0, c] * h0 + nodes[i1, j0, k0, c] * g0
                        planes[q, 1] = nodes[i0, j0, k1, c] * h0 + nodes[i1, j0, k1, c] * g0
                        planes[q, 2] = nodes[i0, j1, k0, c] * h0 + nodes[i1, j1, k0, c] * g0
                        planes[q, 3] = nodes[i0, j1, k1, c] * h0 + nodes[i1, j1, k1, c] * g0
                    for t1 in range(a1, b1):
                        g1 = part1[t1]
                        h1 = one - g1
                        for q in range(count):
                            lines[q, 0] = planes[q, 0] * h1 + planes[q, 2] * g1
                            lines[q, 1] = planes[q, 1] * h1 + planes[q, 3] * g1
                        for t2 in range(a2, b2):
                            g2 = part2[t2]
                            h2 = one - g2
                            best, second, first = np.float32(-np.inf), np.float32(-np.inf), 0
                            for q in range(count):
                                score = lines[q, 0] * h2 + lines[q, 1] * g2
                                scores[q] = score
                                if score > best:
                                    second, best, first = best, score, q
                                elif score > second:
                                    second = score
                            if decision == _HIGHEST:
                                labels[t0, t1, t2] = values[chosen[first]]
                                margin = (best - second) * np.float32(256)
                            else:
                                number, margin = decide_marks(scores, chosen, count, decision)
                                labels[t0, t1, t2] = values[number]
                                margin = margin * np.float32(256)
                            confidence[t0, t1, t2] = levels[int(margin)] if margin < levels.size else 255


@njit(
    [
        void(
            *_NODES,
            float64[:, ::1], float64[::1],
            float64[::1], float64[::1], float64[::1],
            float64[::1], int64, int64[::1], boolean,
            *_TABLES,
            _any(item, 3), _any(uint8, 3),
        )
        for item in (uint8, uint16)
    ],
    **_OPTIONS,
)  # fmt: skip
def label_points(
    nodes, top, lead, matrix, origin, place0, place1, place2, reach, base, sizes, limited, values, levels, sure,
    decision, labels, confidence,
):  # fmt: skip
    """The same for voxels whose lines do not run along the nodes; those whose place on axis 0 lies within reach."""
    classes = nodes.shape[3]
    one = np.float32(1)
    place, low, part = np.empty(3, np.float64), np.empty(3, np.int64), np.empty(3, np.float32)
    lowest, highest = np.empty(classes, np.float32), np.empty(classes, np.float32)
    chosen, scores = np.empty(classes, np.int64), np.empty(classes, np.float32)
    count, at0, at1, at2 = 0, -1, -1, -1
    for t0 in range(place0.size):
        for t1 in range(place1.size):
            for t2 in range(place2.size):
                inside = True
                for a in range(3):
                    place[a] = (
                        matrix[a, 0] * place0[t0] + matrix[a, 1] * place1[t1] + matrix[a, 2] * place2[t2] + origin[a]
                    )
                    inside = inside and place[a] >= -0.5 and place[a] <= sizes[a] - 0.5
                    place[a] = min(max(place[a], 0.0), float(sizes[a] - 1))
                if limited and not inside:
                    continue
                if place[0] < reach[0] or place[0] >= reach[1]:
                    continue
                for a in range(3):
                    low[a] = max(0, min(int(place[a]), sizes[a] - 2))
                    part[a] = np.float32(place[a] - low[a])
                i0, j0, k0 = low[0] - base, low[1], low[2]
                i1, j1, k1 = min(i0 + 1, nodes.shape[0] - 1), min(j0 + 1, sizes[1] - 1), min(k0 + 1, sizes[2] - 1)
                if is_clear(top, lead, i0, i1, j0, j1, k0, k1, sure):
                    labels[t0, t1, t2] = values[top[i0, j0, k0]]
                    confidence[t0, t1, t2] = 255
                    continue
                g0, g1, g2 = part[0], part[1], part[2]
                h0, h1, h2 = one - g0, one - g1, one - g2
                if i0 != at0 or j0 != at1 or k0 != at2:  # as in label_cells; neighbours on a line share their nodes
                    at0, at1, at2 = i0, j0, k0
                    count = choose_classes(nodes, i0, i1, j0, j1, k0, k1, lowest, highest, chosen, sure, decision)
                best, second, first = np.float32(-np.inf), np.float32(-np.inf), 0
                for q in range(count):
                    c = chosen[q]
                    line0 = (nodes[i0, j0, k0, c] * h0 + nodes[i1, j0, k0, c] * g0) * h1
                    line0 = line0 + (nodes[i0, j1, k0, c] * h0 + nodes[i1, j1, k0, c] * g0) * g1
                    line1 = (nodes[i0, j0, k1, c] * h0 + nodes[i1, j0, k1, c] * g0) * h1
                    line1 = line1 + (nodes[i0, j1, k1, c] * h0 + nodes[i1, j1, k1, c] * g0) * g1
                    score = line0 * h2 + line1 * g2
                    scores[q] = score
                    if score > best:
                        second, best, first = best, score, c
                    elif score > second:
                        second = score
                if decision == _HIGHEST:
                    labels[t0, t1, t2] = values[first]
                    margin = (best - second) * np.float32(256)
                else:
                    number, margin = decide_marks(scores, chosen, count, decision)
                    labels[t0, t1, t2] = values[number]
                    margin = margin * np.float32(256)
                confidence[t0, t1, t2] = levels[int(margin)] if margin < levels.size else 255
