import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.solvers.conjugate_gradients import conjugate_gradients
from reconstruct.solvers.lbfgs import lbfgs
from tests.builders.networks import randn as randn32

Evaluated = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

randn = partial(randn32, dtype=torch.float64)


def definite(count: int, n: int, condition: float, seed: int) -> torch.Tensor:
    """Symmetric matrices with eigenvalues from 1 / condition to 1, spread evenly on a logarithmic scale."""
    basis, _ = torch.linalg.qr(randn(count, n, n, seed=seed))
    values = torch.logspace(-math.log10(condition), 0, n, dtype=torch.float64)
    return basis @ torch.diag(values) @ basis.mT


class Quadratics:
    """1/2 (x - m)^T A (x - m) of each image, in a shape of its own; counts the evaluations of each."""

    def __init__(self, count: int, shape: tuple[int, ...], condition: float, seed: int = 0, until: float = 0.0) -> None:
        n = math.prod(shape)
        self.matrices = definite(count, n, condition, seed)
        self.minima = randn(count, *shape, seed=seed + 1)
        self.until, self.counts = until, [0] * count

    def __call__(self, points: torch.Tensor, images: torch.Tensor) -> Evaluated:
        assert points.shape == self.minima[images].shape
        for image in images.tolist():
            self.counts[image] += 1
        off = (points - self.minima[images]).flatten(1)
        slope = torch.einsum("nij,nj->ni", self.matrices[images], off)
        return 0.5 * (off * slope).sum(1), slope.view_as(points), slope.norm(dim=1) <= self.until


@given(st.integers(1, 4), st.integers(1, 12), st.sampled_from([1.0, 10.0, 1000.0]), st.integers(0, 99))
def test_convex_quadratics(count: int, n: int, condition: float, seed: int) -> None:
    problem = Quadratics(count, (n,), condition, seed, until=1e-9)
    found = lbfgs([(problem, 400)], torch.zeros(count, n, dtype=torch.float64))
    assert found.status == ["converged"] * count
    # |x - m| <= |A^-1| |gradient|
    assert float((found.point - problem.minima).flatten(1).norm(dim=1).max()) <= condition * 1e-9
    assert found.evaluations == problem.counts


def rosenbrock(points: torch.Tensor, images: torch.Tensor) -> Evaluated:
    x, y = points[:, 0], points[:, 1]
    value = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    slope = torch.stack((-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)), dim=1)
    return value, slope, slope.norm(dim=1) <= 1e-8


def test_rosenbrock() -> None:
    """Curved, not convex; from several sides. The Hessian at (1, 1) has the smallest eigenvalue 0.4."""
    start = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [2.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    found = lbfgs([(rosenbrock, 300)], start)
    assert found.status == ["converged"] * 4
    assert float((found.point - 1).norm(dim=1).max()) <= 2 * 1e-8 / 0.39
    assert found.evaluations[3] == 1
    assert max(found.evaluations) < 120


def test_images_are_independent() -> None:
    """Also of images of quite another scale and difficulty, and of when these stop: to the last bit."""
    problem = Quadratics(4, (2, 3, 1), 300.0, until=1e-6)
    start = torch.stack([scale * randn(2, 3, 1, seed=9) for scale in (0.0, 1.0, 1e3, 1e-3)])
    together = lbfgs([(problem, 60)], start)
    assert len(set(together.evaluations)) > 1
    for i in range(4):
        alone = lbfgs([(lambda x, _, i=i: problem(x, torch.tensor([i])), 60)], start[i : i + 1])
        assert (alone.status, alone.evaluations) == (together.status[i : i + 1], together.evaluations[i : i + 1])
        # A batched product may add its terms in another order, and the path amplifies that by the condition number.
        torch.testing.assert_close(alone.point[0], together.point[i], rtol=0, atol=1e-5)


def test_an_image_that_is_done_costs_nothing_more() -> None:
    problem = Quadratics(3, (8,), 1000.0, until=1e-8)
    start = torch.zeros(3, 8, dtype=torch.float64)
    start[1] = problem.minima[1]
    found = lbfgs([(problem, 100)], start)
    assert found.status[1] == "converged"
    assert problem.counts[1] == found.evaluations[1] == 1
    assert (found.point[1] == start[1]).all()
    assert min(problem.counts[0], problem.counts[2]) > 5


@pytest.mark.parametrize("evaluations", [0, 1, 2, 3, 7])
def test_the_budget_is_kept(evaluations: int) -> None:
    problem = Quadratics(2, (8,), 1e6)
    start = torch.zeros(2, 8, dtype=torch.float64)
    found = lbfgs([(problem, evaluations)], start)
    assert found.status == ["budget"] * 2
    assert found.evaluations == problem.counts == [evaluations] * 2
    assert (found.point == start).all() or evaluations > 1


def test_values_fall_with_the_budget() -> None:
    """A run is the beginning of a longer one, and no accepted step climbs."""
    values = []
    for evaluations in range(1, 40):
        problem = Quadratics(2, (8,), 1e4)
        point = lbfgs([(problem, evaluations)], torch.zeros(2, 8, dtype=torch.float64)).point
        values.append(problem(point, torch.arange(2))[0])
    falls = torch.stack(values).diff(dim=0)
    assert (falls <= 0).all()
    assert (values[-1] < 1e-4 * values[0]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_not_finite_values_are_backed_away_from(bad: float) -> None:
    """x - log x is not defined at x <= 0, where the first steps from near 0 or from afar would go."""

    def evaluate(points: torch.Tensor, images: torch.Tensor) -> Evaluated:
        value = torch.where(points > 0, points - points.clamp_min(1e-300).log(), bad).sum(1)
        slope = torch.where(points > 0, 1 - 1 / points, bad)
        return value, slope, slope.norm(dim=1) <= 1e-8

    start = torch.tensor([[1e-2, 3.0], [20.0, 5.0], [0.9, 1e-3]], dtype=torch.float64)
    found = lbfgs([(evaluate, 200)], start, first=10.0)
    assert found.status == ["converged"] * 3
    torch.testing.assert_close(found.point, torch.ones_like(start), rtol=0, atol=2e-8)  # the Hessian there is I


def test_nothing_can_be_done_where_the_start_is_not_finite() -> None:
    def evaluate(points: torch.Tensor, images: torch.Tensor) -> Evaluated:
        value = torch.where(images == 0, torch.nan, points.square().sum(1))
        return value, 2 * points, points.norm(dim=1) < 1e-8

    found = lbfgs([(evaluate, 50)], torch.ones(2, 3, dtype=torch.float64))
    assert found.status == ["stagnated", "converged"]
    assert found.evaluations[0] == 1
    assert (found.point[0] == 1).all()


def test_stagnates_where_rounding_ends_the_descent() -> None:
    """A wrong gradient, uphill: every step is refused, until none is long enough to be tried."""

    def evaluate(points: torch.Tensor, images: torch.Tensor) -> Evaluated:
        return points.square().sum(1), -2 * points, torch.zeros(len(points), dtype=torch.bool)

    found = lbfgs([(evaluate, 1000)], torch.ones(1, 3, dtype=torch.float64))
    assert found.status == ["stagnated"]
    assert found.evaluations[0] < 50
    assert (found.point == 1).all()


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_scale_of_the_function_does_not_matter(scale: float) -> None:
    """Minima of c f are those of f: the first step is too long here, and has to be shortened at every c."""
    problem = Quadratics(2, (6,), 10.0)

    def evaluate(points: torch.Tensor, images: torch.Tensor) -> Evaluated:
        value, slope, _ = problem(points, images)
        return scale * value, scale * slope, slope.norm(dim=1) <= 1e-8

    found = lbfgs([(evaluate, 200)], problem.minima + 1e-3, first=10.0)
    assert found.status == ["converged"] * 2
    assert float((found.point - problem.minima).norm(dim=1).max()) <= 1e-7


def test_no_images() -> None:
    found = lbfgs([(Quadratics(0, (4,), 10.0), 10)], torch.zeros(0, 4, dtype=torch.float64))
    assert (found.point.shape, found.status, found.evaluations) == ((0, 4), [], [])


@given(st.integers(1, 4), st.integers(1, 10), st.integers(0, 99))
def test_conjugate_gradients_are_exact_after_n_steps(count: int, n: int, seed: int) -> None:
    """In exact arithmetic. A step's rounding, eps, grows by at most the condition number at each of a few steps."""
    matrices, preconditioner = definite(count, n, 5.0, seed), definite(count, n, 2.0, seed + 1)
    right = randn(count, n, seed=seed + 2)
    found = conjugate_gradients(
        lambda v: torch.einsum("nij,nj->ni", matrices, v),
        right,
        lambda v: torch.einsum("nij,nj->ni", preconditioner, v),
        n,
    )
    expected = torch.linalg.solve(matrices, right)
    assert float((found - expected).norm()) <= 1e-9 * float(expected.norm())


def test_conjugate_gradients_stay_where_there_is_nothing_to_do() -> None:
    """Zero right side, zero operator, a solved system: no division by zero, in a batch with one that goes on."""
    matrices = torch.stack(
        (torch.eye(5).double(), torch.zeros(5, 5).double(), torch.eye(5).double(), definite(1, 5, 50, 0)[0])
    )
    right = torch.stack((torch.zeros(5).double(), *randn(3, 5)))
    found = conjugate_gradients(lambda v: torch.einsum("nij,nj->ni", matrices, v), right, lambda v: v, 30)
    assert (found[:2] == 0).all()
    torch.testing.assert_close(found[2], right[2])
    torch.testing.assert_close(found[3], torch.linalg.solve(matrices[3], right[3]))


def test_conjugate_gradients_of_images() -> None:
    """N x C x H x W: each image with its own steps; 0 iterations give 0."""
    weights = torch.logspace(-1, 0, 3 * 4 * 5, dtype=torch.float64).view(3, 4, 5)
    right = randn(2, 3, 4, 5)
    assert (conjugate_gradients(lambda v: weights * v, right, lambda v: v, 0) == 0).all()
    found = conjugate_gradients(lambda v: weights * v, right, lambda v: v, 60)
    torch.testing.assert_close(found, right / weights, rtol=0, atol=1e-8)
    alone = conjugate_gradients(lambda v: weights * v, right[1:], lambda v: v, 60)
    torch.testing.assert_close(found[1:], alone, rtol=0, atol=1e-8)
    assert conjugate_gradients(lambda v: weights * v, right[:0], lambda v: v, 3).shape == (0, 3, 4, 5)


def test_stages_end_where_the_last_function_has_its_minimum() -> None:
    """A continuation, from condition 10 to 10^4: each stage takes its own evaluations and no more."""
    problems = [Quadratics(3, (8,), condition, seed=4) for condition in (10.0, 300.0, 1e4)]
    stages = [(problem, most) for problem, most in zip(problems, (7, 5, 80), strict=True)]
    found = lbfgs(stages, torch.zeros(3, 8, dtype=torch.float64))
    assert [problem.counts for problem in problems[:2]] == [[7] * 3, [5] * 3]
    # The last ends earlier where rounding ends the descent.
    assert max(problems[2].counts) <= 80
    assert found.evaluations == [12 + each for each in problems[2].counts]
    assert float((found.point - problems[-1].minima).norm(dim=1).max()) < 1e-3


def test_what_is_known_of_the_curvature_is_kept_from_stage_to_stage() -> None:
    """Stages of one function, a single evaluation lost at each, are much better than steepest descent in each."""
    whole, parts, anew = (Quadratics(1, (20,), 1e4, seed=2) for _ in range(3))
    start = torch.zeros(1, 20, dtype=torch.float64)
    at_once = lbfgs([(whole, 60)], start).point
    in_parts = lbfgs([(parts, 5)] * 15, start).point
    forgetting = start
    for _ in range(15):
        forgetting = lbfgs([(anew, 5)], forgetting).point
    values = [float(whole(point, torch.arange(1))[0]) for point in (at_once, in_parts, forgetting)]
    assert values[0] < values[1] < 0.1 * values[2]


def test_an_image_that_is_stuck_goes_on_in_the_next_stage() -> None:
    """The first function's gradient points uphill for image 0, which no step improves; the second's is right."""
    problem = Quadratics(2, (6,), 10.0, until=1e-8)

    def wrong(points: torch.Tensor, images: torch.Tensor) -> Evaluated:
        value, slope, stop = problem(points, images)
        return value, torch.where((images == 0)[:, None], -slope, slope), stop & False

    start = problem.minima + 1.0
    stuck = lbfgs([(wrong, 40)], start)
    assert stuck.status == ["stagnated", "budget"]
    assert (stuck.point[0] == start[0]).all()
    found = lbfgs([(wrong, 40), (problem, 200)], start)
    assert found.status == ["converged"] * 2
    assert found.evaluations[0] > stuck.evaluations[0]
    assert lbfgs([(wrong, 0), (problem, 200)], start).status == ["converged"] * 2
