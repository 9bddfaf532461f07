import numpy
import pytest
from scipy.sparse.linalg import lsmr

from reconstruct.solvers.least_squares import cgls, cgne


class Matrix:
    """A dense matrix as the solvers' operator.

    It is applied to one image at a time: a product with several rounds otherwise on some processors, and an image's
    iterations are counted exactly.
    """

    def __init__(self, matrix: numpy.ndarray) -> None:
        self.matrix = matrix
        self.norm = numpy.linalg.norm(matrix, 2)

    def apply(self, inputs: numpy.ndarray) -> numpy.ndarray:
        return numpy.stack([self.matrix @ each for each in inputs])

    def adjoint(self, responses: numpy.ndarray) -> numpy.ndarray:
        return numpy.stack([each @ self.matrix for each in responses])


def matrix(rows: int, columns: int, rank: int | None = None, condition: float = 50) -> Matrix:
    rng = numpy.random.default_rng(rows * 1000 + columns)
    small = min(rows, columns)
    left = numpy.linalg.qr(rng.standard_normal((rows, small)))[0]
    right = numpy.linalg.qr(rng.standard_normal((columns, small)))[0]
    values = numpy.geomspace(1, 1 / condition, small)
    values[rank or small :] = 0
    return Matrix((left * values) @ right.T)


def right_hand_sides(rows: int, count: int = 3) -> numpy.ndarray:
    return numpy.random.default_rng(1).standard_normal((count, rows))


@pytest.mark.parametrize("shape", [(40, 25), (25, 25), (25, 40)])
@pytest.mark.parametrize("rank", [None, 12])
def test_cgls_gives_the_pseudoinverse_whatever_the_rank(shape: tuple[int, int], rank: int | None) -> None:
    a, z = matrix(*shape, rank=rank), right_hand_sides(shape[0])
    found = cgls(a, z, norm=a.norm, tolerance=1e-13, iterations=500)
    expected = z @ numpy.linalg.pinv(a.matrix, rcond=1e-10).T
    # The normal equations see the condition number squared: 2500 * 1e-13, and some.
    numpy.testing.assert_allclose(found.value, expected, atol=1e-8 * abs(expected).max())
    assert set(found.status) <= {"converged", "stagnated"}


@pytest.mark.parametrize("shape", [(40, 25), (25, 40)])
@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_damped_solutions_agree_with_the_dense_formula_and_with_scipy(shape: tuple[int, int], damping: float) -> None:
    a, z = matrix(*shape), right_hand_sides(shape[0])
    dense = numpy.linalg.solve(a.matrix.T @ a.matrix + damping * numpy.eye(shape[1]), a.matrix.T @ z.T).T
    by_inputs = cgls(a, z, norm=a.norm, damping=damping, tolerance=1e-12, iterations=300)
    by_responses = cgne(a, z, damping=damping, tolerance=1e-12, iterations=300)
    by_scipy = [lsmr(a.matrix, each, damp=damping**0.5, atol=1e-13, btol=1e-13, maxiter=1000)[0] for each in z]
    for found in (by_inputs.value, by_responses.value, numpy.array(by_scipy)):
        # The gradient at the stop, tolerance |A| |r|, divided by the least curvature, the damping.
        numpy.testing.assert_allclose(found, dense, atol=1e-12 * 10 / damping * 100)
    assert by_inputs.status == by_responses.status == ["converged"] * 3


def test_cgne_gives_the_minimum_norm_solution() -> None:
    a, z = matrix(25, 40), right_hand_sides(25)
    found = cgne(a, z, tolerance=1e-12, iterations=300)
    numpy.testing.assert_allclose(found.value, z @ numpy.linalg.pinv(a.matrix).T, atol=1e-7)


@pytest.mark.parametrize("solver", ["cgls", "cgne"])
def test_preconditioning_changes_the_work_and_not_the_answer(solver: str) -> None:
    shape = (60, 40) if solver == "cgls" else (40, 60)
    a, z = matrix(*shape, condition=1e3), right_hand_sides(shape[0])
    gram = a.matrix.T @ a.matrix if solver == "cgls" else a.matrix @ a.matrix.T
    noise = numpy.random.default_rng(2).standard_normal(gram.shape) * 1e-7
    inverse = numpy.linalg.inv(gram + noise @ noise.T + 1e-6 * numpy.eye(40))
    solve = (
        (lambda **options: cgls(a, z, norm=a.norm, **options)) if solver == "cgls" else (lambda **o: cgne(a, z, **o))
    )
    plain = solve(tolerance=1e-11, iterations=2000)
    fast = solve(tolerance=1e-11, iterations=2000, precondition=lambda s: s @ inverse)
    assert max(fast.iterations) * 5 < min(plain.iterations)
    numpy.testing.assert_allclose(fast.value, z @ numpy.linalg.pinv(a.matrix).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", ["cgls", "cgne"])
def test_images_of_a_batch_are_independent(solver: str) -> None:
    a = matrix(30, 30, condition=10)
    z = right_hand_sides(30, 4)
    z[1] = a.matrix[:, 0] * 3  # converges at its own pace
    z[2] = 0
    z[3] *= 1e6

    def solve(batch: numpy.ndarray):
        if solver == "cgls":
            return cgls(a, batch, norm=a.norm, tolerance=1e-6, iterations=200)
        return cgne(a, batch, tolerance=1e-6, iterations=200)

    together, alone = solve(z), [solve(z[i : i + 1]) for i in range(4)]
    assert together.iterations == [each.iterations[0] for each in alone]
    assert together.status == [each.status[0] for each in alone] == ["converged"] * 4
    for i, each in enumerate(alone):
        # Both are within condition number times tolerance of the solution.
        numpy.testing.assert_allclose(together.value[i], each.value[0], rtol=0, atol=2e-5 * abs(z[i]).max() * 10)
    assert together.iterations[2] == 0
    assert (together.value[2] == 0).all()


def test_the_residual_is_that_of_the_value_and_the_budget_is_said() -> None:
    a, z = matrix(40, 40, condition=1e4), right_hand_sides(40)
    found = cgls(a, z, norm=a.norm, tolerance=1e-12, iterations=5)
    assert found.status == ["budget"] * 3
    assert found.iterations == [5] * 3
    residual = numpy.linalg.norm(z - a.apply(found.value), axis=1) / numpy.linalg.norm(z, axis=1)
    numpy.testing.assert_allclose(found.residual, residual)


def test_the_stopping_inequality_holds_where_converged_is_said() -> None:
    a, z = matrix(40, 25), right_hand_sides(40)
    for tolerance in (1e-2, 1e-4, 1e-8):
        found = cgls(a, z, norm=a.norm, tolerance=tolerance, iterations=500)
        residual = z - a.apply(found.value)
        slope = numpy.linalg.norm(a.adjoint(residual), axis=1)
        assert found.status == ["converged"] * 3
        assert (slope <= 1.01 * tolerance * a.norm * numpy.linalg.norm(residual, axis=1)).all()


def test_rounding_is_said_to_have_ended_progress() -> None:
    a = matrix(40, 30)
    single = Matrix(a.matrix.astype("float32"))
    z = right_hand_sides(40).astype("float32")
    exact = z @ numpy.linalg.pinv(a.matrix).T
    found = cgls(single, z, norm=single.norm, tolerance=1e-30, iterations=5000)
    assert found.status == ["stagnated"] * 3
    # float32 rounding times the condition number squared.
    assert abs(found.value - exact).max() <= 6e-8 * 2500 * abs(exact).max() * 10
    wide = Matrix(single.matrix.T.copy())
    found = cgne(wide, z[:, :30], tolerance=1e-30, iterations=5000)
    assert set(found.status) <= {"stagnated", "budget"}
    assert max(found.residual) < 1e-4
