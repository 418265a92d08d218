"""Check injectivity and weak injectivity of a ReLU network on visited pieces (Kivva et al. 2022, Definition 3.2).

A network of linear layers with (leaky) ReLUs between them cuts R^m into finitely many convex polyhedra, its pieces, on
each of which it is affine: f(z) = A z + b. The pattern of z, that is which units are on and which off, identifies its
piece, and given a pattern the piece is a set of linear inequalities in z, however deep the network is. So a linear
program tells whether two pieces share a value of f.

Both checks look only at pieces that rows of z visit: `looked_at` says how many, and which share of the rows they hold.
With s the largest singular value of these pieces and r half the longest side of the rows' bounding box, z and z' count
as two points from |z - z'| = sqrt(tolerance) * r on, and f gives two points one image where
|f(z) - f(z')| <= tolerance * s * min(|z - z'|, r). So a network that is injective by construction, such as one of
invertible layers and leaky ReLUs, still fails where it shrinks a direction below the tolerance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag
from scipy.optimize import linprog

from ivae_lab.core.arrays import Bools, Floats
from ivae_lab.core.mixture_generator import ReluNetwork
from ivae_lab.metrics.check import Check

Points = tuple[Floats, Floats]  # z and z', both (m,)


def injective(network: ReluNetwork, z: Floats, tolerance: float = 1e-8, most_pieces: int = 200) -> Check:
    """Check (F3), |f^-1({x})| = 1 for every x in f(R^m), on the visited pieces inside the bounding box of the rows.

    A piece of rank below m breaks it if it holds two points with one image: linear programs maximise and minimise each
    coordinate of z - z' under A z = A z', both inside the piece and the box. Two pieces, of patterns p and p', break it
    if they share an image away from their common border. Where p and p' differ, unit j is not below 0 in one piece and
    not above 0 in the other, so a linear program maximises the sum of the unit's magnitudes at z and z', over the j
    that differ, under A z + b = A' z' + b'. If the maximum is 0, both points lie in both pieces, and are one point as f
    is injective on each piece; otherwise they are two points. No program is run for pairs that are ruled out by the
    bounding boxes of the images or by the linear equations. A collision is reported only if the network itself confirms
    it.

    Parameters
    ----------
    network
        f, from R^m to R^d.
    z
        Rows whose pieces and bounding box are looked at, shape (N, m).
    tolerance
        Singular values up to `tolerance` times the largest one count as 0; see the module for what follows from it.
    most_pieces
        Only this many pieces are looked at, those with most rows first.

    Returns
    -------
    Check
        Failed: `evidence` has `z`, `z_other` and `f`, and for a single piece also a `row` that visits it, its `rank`
        and the `direction` (m,) in which f is constant. None: a program gave no answer, or one that the network does
        not confirm.

    Raises
    ------
    ValueError
        If z is not finite, has not the shape (N, m) or is constant in a coordinate, or if a parameter is not above 0.
    """
    region = _Region(network, z, tolerance, most_pieces)
    evidence = region.evidence()
    lower = [index for index, piece in enumerate(region.pieces) if piece.rank < region.size]
    lost = _search(region, ((index, index) for index in lower), [region.box] * len(region.pieces))
    if lost.points is not None:
        return _lost_rank(region, lost.points, lower[lost.tried - 1], evidence)
    extents = _extents(region)
    crossed = _search(region, _meeting(region, extents), extents)
    undecided = lost.undecided + crossed.undecided
    total = len(region.pieces) * (len(region.pieces) - 1) // 2
    evidence |= {"pairs": total, "pairs_tried": crossed.tried, "undecided": undecided}
    looked_at = f"Rank and collisions of {region.what()}: {total} pairs, of which {crossed.tried} have images near by."
    if crossed.points is not None:
        looked_at = f"Rank and collisions of {region.what()}, up to the first of {total} pairs that collides."
        evidence |= region.images(crossed.points)
        return Check("F3", looked_at, False, f"Two pieces share an image: {region.say(crossed.points)}", evidence)
    if undecided:
        return Check(
            "F3", looked_at, None, f"Of {undecided} pieces or pairs, linear programs could not tell.", evidence
        )
    return Check("F3", looked_at, True, "", evidence)


def weakly_injective(
    network: ReluNetwork, z: Floats, tolerance: float = 1e-8, most_pieces: int = 200, most_rows: int = 200
) -> Check:
    """Check (F2) on the visited pieces, each taken whole: not cut off at the bounding box of the rows.

    (i) There are x0 and delta > 0 such that every x of f(R^m) in the ball B(x0, delta) has one preimage. The check
    searches for a row z in a piece of rank m whose x0 = f(z) has a distance from the image of every other visited
    piece; delta is at most that distance, and at most the piece's smallest singular value times the distance from z to
    the piece's border, behind which there may be pieces that no row visits.

    (ii) The x with infinitely many preimages have measure 0 in f(R^m). The paper speaks of the Lebesgue measure on
    f(R^m), a set of Lebesgue measure 0 in R^n if m < n; here it is read as the m-dimensional Hausdorff measure. As
    there are finitely many pieces, such an x has infinitely many preimages in one of them, which then has rank < m, and
    the images of those pieces have dimension < m. So in this reading (ii) holds for every network, and only (i) is left
    to check. Parts of the image that have lower dimension throughout count for nothing.

    So x -> max(x, 0) is weakly injective on R, and x -> |x| and x -> 0 are not: both break (i).

    Parameters
    ----------
    network, z, tolerance, most_pieces
        As in `injective`.
    most_rows
        Only this many rows, evenly spaced among those in pieces of rank m, are tried.

    Returns
    -------
    Check
        Passed: `evidence` has `z`, `x0` and `delta`; `delta` is None where f is affine, so that any delta fits. Failed:
        each row tried shares its image with a point of another piece (`z`, `z_other`, `f` of one of them), or lies on
        an edge, or no piece has rank m. None: all rows tried lie on edges, or a linear program gave no answer.

    Raises
    ------
    ValueError
        As in `injective`.
    """
    if most_rows < 1:
        raise ValueError(f"expected most_rows above 0, got {most_rows}")
    region = _Region(network, z, tolerance, most_pieces)
    evidence = region.evidence()
    full = [index for index, piece in enumerate(region.pieces) if piece.rank == region.size]
    rows = np.flatnonzero(np.isin(region.owner, full))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(most_rows, len(rows))).astype(int))]
    tried, unsolved, shared = 0, 0, None
    for tried, row in enumerate(rows, 1):
        try:
            result = _own_ball(region, row)
        except _UnsolvedError:
            unsolved += 1
            continue
        if isinstance(result, float):
            evidence |= {"rows_tried": tried, "z": region.z[row].tolist(), "x0": region.f(region.z[row]).tolist()}
            evidence["delta"] = result if np.isfinite(result) else None
            return Check("F2", _tried(region, tried), True, "", evidence)
        shared = shared or result
    evidence |= {"rows_tried": tried, "rows_undecided": unsolved}
    passed, witness = _none_of_its_own(region, shared, unsolved)
    return Check("F2", _tried(region, tried), passed, witness, evidence | (region.images(shared) if shared else {}))


class _UnsolvedError(Exception):
    """A linear program ended neither with an optimum nor with a proof that it has none."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """A visited piece in the units of its region."""

    row: int  # number of a row that visits it
    count: int  # number of rows that visit it
    pattern: Bools  # (H,)
    matrix: Floats  # (d, m)
    offset: Floats  # (d,)
    sides: Floats  # (H, m) of unit length, or 0 of a unit that is constant on the piece: sides t <= limits
    limits: Floats  # (H,)
    singular: Floats  # (m,) singular values of the matrix, the region's largest being 1
    rank: int


class _Region:
    """Visited pieces and the box of the rows, in units t = (z - centre) / radius and y = (f(z) - f(centre)) / scale."""

    def __init__(self, network: ReluNetwork, z: Floats, tolerance: float, most_pieces: int) -> None:
        self.network, self.z, self.tolerance = network, np.asarray(z, float), tolerance
        _check(self.z, tolerance, most_pieces)
        patterns = network.pieces(self.z)
        self.size = self.z.shape[1]
        low, high = self.z.min(0), self.z.max(0)
        self.centre, half = (low + high) / 2, (high - low) / 2
        self.radius = float(half.max())
        self.box = np.stack([-half, half], axis=1) / self.radius  # (m, 2)
        first, member, count = _distinct(patterns)
        self.visited = len(first)
        self.owner = member  # (N,) number of each row's piece, the most visited first
        chosen = [(int(row), int(rows)) for row, rows in zip(first[:most_pieces], count[:most_pieces], strict=True)]
        forms = [network.affine(patterns[row]) for row, _ in chosen]
        singular = np.linalg.svd(np.stack([matrix for matrix, _ in forms]), compute_uv=False)
        singular = np.pad(singular, ((0, 0), (0, self.size - singular.shape[1])))  # if d < m the others are 0
        self.largest = float(singular.max())
        self.scale = (self.largest or 1.0) * self.radius
        self.middle = self.f(self.centre)
        self.near = 2 * tolerance * np.sqrt(self.size)  # no less than what may lie between colliding images, in units
        self.pieces = tuple(
            self._piece(row, rows, patterns[row], affine, values)
            for (row, rows), affine, values in zip(chosen, forms, singular, strict=True)
        )

    def _piece(self, row: int, count: int, pattern: Bools, affine: tuple[Floats, Floats], singular: Floats) -> _Piece:
        matrix, offset = affine
        sides, limits = self.network.halfspaces(pattern)
        length = np.linalg.norm(sides, axis=1)
        constant = length <= 1e-12 * length.max(initial=0)
        length[constant] = 1
        limits = (limits - sides @ self.centre) / length / self.radius
        singular = singular / (self.largest or 1.0)
        return _Piece(
            row=row,
            count=count,
            pattern=pattern,
            matrix=matrix * self.radius / self.scale,
            offset=(matrix @ self.centre + offset - self.middle) / self.scale,
            sides=np.where(constant[:, None], 0, sides / length[:, None]),
            limits=np.where(constant, 1, limits),
            singular=singular,
            rank=int((singular > self.tolerance).sum()),
        )

    def f(self, z: Floats) -> Floats:
        """Compute the image (d,) of a point (m,)."""
        image: Floats = self.network(z[None])[0]
        return image

    def point(self, t: Floats) -> Floats:
        """Convert a point t (m,) to the units of z."""
        z: Floats = self.centre + self.radius * t
        return z

    def evidence(self) -> dict[str, Any]:
        """Return the counts of pieces and rows, and the range of the singular values."""
        smallest = min(float(piece.singular[-1]) for piece in self.pieces)
        return {
            "pieces_visited": self.visited,
            "pieces_looked_at": len(self.pieces),
            "pieces_of_lower_rank": sum(piece.rank < self.size for piece in self.pieces),
            "rows": len(self.z),
            "rows_looked_at": sum(piece.count for piece in self.pieces),
            "largest_singular_value": self.largest,
            "smallest_singular_value": smallest * self.largest,
        }

    def what(self) -> str:
        """Describe in words how many pieces are looked at."""
        share = sum(piece.count for piece in self.pieces) / len(self.z)
        return (
            f"{len(self.pieces)} of the {self.visited} pieces that {len(self.z)} rows visit, with {share:.1%} of them"
        )

    def apart(self, points: Points) -> bool:
        """Return True if z and z' count as two points; see the module."""
        return bool(np.linalg.norm(points[0] - points[1]) >= np.sqrt(self.tolerance) * self.radius)

    def collide(self, points: Points) -> bool:
        """Return True if the network itself gives two points one image; see the module."""
        distance = min(float(np.linalg.norm(points[0] - points[1])), self.radius)
        rise = np.linalg.norm(self.f(points[0]) - self.f(points[1]))
        return self.apart(points) and bool(rise <= self.tolerance * self.largest * distance)

    def images(self, points: Points) -> dict[str, Any]:
        """Return the evidence of a collision."""
        return {"z": points[0].tolist(), "z_other": points[1].tolist(), "f": self.f(points[0]).tolist()}

    def say(self, points: Points) -> str:
        """Describe a collision in words."""
        return f"f({_short(points[0])}) = f({_short(points[1])}) = ({_short(self.f(points[0]))})."


def _check(z: Floats, tolerance: float, most_pieces: int) -> None:
    if not np.isfinite(z).all():
        raise ValueError("expected finite rows of z, got some that are not")
    if len(z) == 0 or (z.max(0) == z.min(0)).any():
        raise ValueError("expected rows of z that differ in every coordinate, got a constant one")
    if not (tolerance > 0 and most_pieces > 0):
        raise ValueError(f"expected tolerance and most_pieces above 0, got {tolerance} and {most_pieces}")


def _distinct(patterns: Bools) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Find the distinct patterns, most frequent first: a row of each, the number of every row's pattern, and counts."""
    packed = np.packbits(np.pad(patterns, ((0, 0), (0, 1))), axis=1)  # one more bit, so that no units are a pattern too
    _, first, member, count = np.unique(packed, axis=0, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(-count, kind="stable")
    place = np.argsort(order)
    return first[order], place[member.reshape(-1)], count[order]


def _minimum(
    cost: Floats, sides: Floats, limits: Floats, bounds: Floats, equations: tuple[Floats, Floats] | None = None
) -> Floats | None:
    """Minimise cost w under sides w <= limits, the bounds and left w = right; return w, or None where nothing fits.

    Raises
    ------
    _UnsolvedError
        If the solver gives up.
    """
    left, right = equations or (None, None)
    result = linprog(
        cost,
        A_ub=sides,
        b_ub=limits,
        A_eq=left,
        b_eq=right,
        bounds=[(float(low), float(high)) for low, high in bounds],
        options={"primal_feasibility_tolerance": 1e-10},
    )
    if result.status not in (0, 2):
        raise _UnsolvedError(result.message)
    return np.asarray(result.x) if result.status == 0 else None


def _differences(size: int) -> Iterator[Floats]:
    """Yield the costs (2 m,) whose minima are the least and the largest t_i - t'_i, for each i."""
    for axis in np.eye(size):
        yield np.r_[axis, -axis]
        yield np.r_[-axis, axis]


def _equations(one: _Piece, other: _Piece, tolerance: float, near: float) -> tuple[Floats, Floats] | None:
    """Write A t + b = A' t' + b' as independent equations: left (rank, 2 m) with orthonormal rows, right (rank,).

    Return None where no t and t' satisfy it to within `near`.
    """
    joined, gap = np.concatenate([one.matrix, -other.matrix], axis=1), other.offset - one.offset
    across, values, left = np.linalg.svd(joined, full_matrices=False)
    independent = values > tolerance
    across, values, left = across[:, independent], values[independent], left[independent]
    met = across.T @ gap
    if np.linalg.norm(gap - across @ met) > near:
        return None
    return left, met / values


def _identical(left: Floats, right: Floats, apart: float) -> bool:
    """Return True if all t and t' in [-1, 1]^m with left (t, t') = right are less than `apart` from each other.

    This holds for two pieces that meet in a face and whose planes, in enough dimensions d, meet nowhere else.
    """
    size = left.shape[1] // 2
    difference = np.concatenate([np.eye(size), -np.eye(size)], axis=1)
    free = difference - difference @ left.T @ left  # the part of t - t' that the equations do not determine
    most = np.linalg.norm(difference @ left.T @ right) + np.linalg.norm(free, 2) * np.sqrt(2 * size)
    return bool(most < apart)


def _collision(region: _Region, pieces: tuple[_Piece, _Piece], extents: tuple[Floats, Floats]) -> Points | None:
    """Find two points with one image, one in each piece and within its extent (m, 2); None where there are none.

    Raises
    ------
    _UnsolvedError
        If linear programs give no answer, or one that the network does not confirm.
    """
    one, other = pieces
    system = _equations(one, other, region.tolerance, region.near)
    if system is None or _identical(*system, np.sqrt(region.tolerance)):
        return None
    sides, limits = block_diag(one.sides, other.sides), np.r_[one.limits, other.limits]
    bounds = np.concatenate(extents)
    if one is not other:
        differ = one.pattern != other.pattern
        inwards = np.r_[one.sides[differ].sum(0), other.sides[differ].sum(0)]
        best = _minimum(inwards, sides, limits, bounds, system)
        if best is None or np.r_[one.limits[differ], other.limits[differ]].sum() - inwards @ best <= region.tolerance:
            return None  # no image is shared, or only that of the common border
    doubtful = False
    for cost in _differences(region.size):
        best = _minimum(cost, sides, limits, bounds, system)
        if best is None:
            return None
        points = region.point(best[: region.size]), region.point(best[region.size :])
        if region.collide(points):
            return points
        doubtful |= region.apart(points)
    if doubtful:
        raise _UnsolvedError("the network does not confirm what a linear program found")
    return None


@dataclass(frozen=True)
class _Search:
    """Result of a search for collisions."""

    points: Points | None  # the first collision, if there is any
    tried: int  # pairs tried, up to the first collision
    undecided: int  # pairs of these without an answer


def _search(region: _Region, pairs: Iterable[tuple[int, int]], extents: list[Floats]) -> _Search:
    """Search pairs of pieces, given by number, for a collision, and stop at the first one."""
    tried = undecided = 0
    for tried, (one, other) in enumerate(pairs, 1):
        try:
            points = _collision(region, (region.pieces[one], region.pieces[other]), (extents[one], extents[other]))
        except _UnsolvedError:
            undecided += 1
            continue
        if points is not None:
            return _Search(points, tried, undecided)
    return _Search(None, tried, undecided)


def _extents(region: _Region) -> list[Floats]:
    """Compute the bounding box (m, 2) of each piece within the region's box; the region's where a program fails."""
    extents: list[Floats] = []
    for piece in region.pieces:
        extent = region.box.copy()
        for axis, side in np.ndindex(region.size, 2):
            cost = np.eye(region.size)[axis] * (-1.0 if side else 1.0)
            try:
                best = _minimum(cost, piece.sides, piece.limits, region.box)
            except _UnsolvedError:
                continue
            if best is not None:
                extent[axis, side] = best[axis]
        extents.append(extent)
    return extents


def _image_box(piece: _Piece, extent: Floats) -> Floats:
    """Compute bounds (d, 2) on the image of the piece."""
    middle, half = extent.mean(1), (extent[:, 1] - extent[:, 0]) / 2
    centre, width = piece.matrix @ middle + piece.offset, np.abs(piece.matrix) @ half
    return np.stack([centre - width, centre + width], axis=1)


def _meeting(region: _Region, extents: list[Floats]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of pieces whose images have bounding boxes that come near each other in every coordinate."""
    boxes = np.stack([_image_box(piece, extent) for piece, extent in zip(region.pieces, extents, strict=True)])
    for one, box in enumerate(boxes[:-1]):
        rest = boxes[one + 1 :]
        clear = (rest[:, :, 0] > box[:, 1] + region.near) | (rest[:, :, 1] < box[:, 0] - region.near)
        for other in np.flatnonzero(~clear.any(1)):
            yield one, one + 1 + int(other)


def _lost_rank(region: _Region, points: Points, index: int, evidence: dict[str, Any]) -> Check:
    """Report that f is not injective on a piece of rank below m."""
    piece = region.pieces[index]
    row, direction = region.z[piece.row], (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
    witness = (
        f"The piece of z = ({_short(row)}) has rank {piece.rank} of {region.size}, and f does not see the direction "
        f"({_short(direction)}) there: {region.say(points)}"
    )
    looked_at = f"Rank of {region.what()}; collisions between them were not looked for any more."
    evidence = evidence | {"row": row.tolist(), "rank": piece.rank, "direction": direction.tolist()}
    return Check("F3", looked_at, False, witness, evidence | region.images(points))


def _own_ball(region: _Region, row: int) -> float | Points | None:
    """Compute the radius of a ball around f of a row, whose piece has rank m, in which no other piece has an image.

    If there is none, return the row and a point of another piece with the same image, or None where the row lies on an
    edge.
    """
    home = region.pieces[region.owner[row]]
    t = (region.z[row] - region.centre) / region.radius
    image = home.matrix @ t + home.offset
    free = float(home.singular[-1] * (home.limits - home.sides @ t).min(initial=np.inf))
    for piece in region.pieces:
        if piece is home:
            continue
        distance, nearest = _distance(piece, image)
        points = region.z[row], region.point(nearest)
        if region.collide(points):
            return points
        free = min(free, distance)
    return free * region.scale if free > region.tolerance else None


def _distance(piece: _Piece, image: Floats) -> tuple[float, Floats]:
    """Bound the distance of y (d,) from the image of a whole piece from below, and find a point t of the piece near it.

    Across the plane that holds the piece's image, the distance is Euclidean; along it, it is that of the largest
    coordinate, which a linear program minimises.
    """
    plane, slopes = np.linalg.qr(piece.matrix)  # (d, k), (k, m)
    gap = image - piece.offset
    along = plane.T @ gap
    across = float(np.linalg.norm(gap - plane @ along))
    size = piece.matrix.shape[1]
    one = np.ones((len(slopes), 1))
    sides = np.concatenate([np.block([[slopes, -one], [-slopes, -one]]), np.pad(piece.sides, ((0, 0), (0, 1)))])
    bounds = np.full((size + 1, 2), [-np.inf, np.inf])
    best = _minimum(np.eye(size + 1)[-1], sides, np.r_[along, -along, piece.limits], bounds)
    if best is None:
        raise _UnsolvedError("a piece that a row visits was said to be empty")
    return float(np.hypot(across, max(best[-1], 0.0))), best[:-1]


def _none_of_its_own(region: _Region, shared: Points | None, undecided: int) -> tuple[bool | None, str]:
    """Return verdict and witness where every row tried shares its image with another piece, or was not decided."""
    rank = max(piece.rank for piece in region.pieces)
    if rank < region.size:
        return False, f"No piece has rank {region.size}: the highest is {rank}."
    if shared is None or undecided:
        return None, f"No row tried has an image of its own, but {undecided or 'all'} of them could not be decided."
    return False, f"No row tried has an image of its own, as here: {region.say(shared)}"


def _tried(region: _Region, rows: int) -> str:
    return f"Images of {rows} rows in pieces of rank {region.size}, against those of {region.what()}."


def _short(values: Floats) -> str:
    return ", ".join([f"{value:.4g}" for value in values[:8]] + ["..."] * (len(values) > 8))
