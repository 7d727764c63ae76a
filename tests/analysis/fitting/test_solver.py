"""The side-by-side solver against closed forms and brute force."""

import numpy as np

from analysis.fitting import solver
from analysis.fitting.solver import Local, minimise


def quadratics(matrices, centres):
    """S problems (x - c)' M (x - c) / 2."""

    def evaluate(points, rows):
        gap, matrix = points - centres[rows], matrices[rows]
        gradient = np.einsum("spq,sq->sp", matrix, gap)
        return Local(
            value=0.5 * np.einsum("sp,sp->s", gap, gradient), gradient=gradient, curvature=matrix, majorant=matrix
        )

    return evaluate


def test_minimum_inside_the_box():
    draw = np.random.default_rng(1)
    factors = draw.standard_normal((7, 3, 3))
    matrices = factors @ factors.transpose(0, 2, 1) + 0.1 * np.eye(3)
    centres = draw.standard_normal((7, 3))
    far = np.full(3, 100.0)
    found = minimise(quadratics(matrices, centres), draw.standard_normal((7, 3)), -far, far, floats_each=9)
    np.testing.assert_allclose(found.points, centres, atol=1e-6)
    assert found.converged.all()


def test_minimum_on_an_edge_of_the_box():
    """With correlated parameters the constrained minimum is not the clipped free one."""
    matrix, centre = np.array([[2.0, 1.5], [1.5, 2.0]]), np.array([-1.0, 2.0])
    found = minimise(
        quadratics(matrix[None], centre[None]), np.array([[3.0, 3.0]]), np.zeros(2), np.full(2, 9.0), floats_each=4
    )
    # x = 0, and d/dy = 1.5 (0 + 1) + 2 (y - 2) = 0
    np.testing.assert_allclose(found.points[0], [0.0, 1.25], atol=1e-7)


def test_chunks_change_nothing(monkeypatch):
    draw = np.random.default_rng(2)
    matrices, centres = np.tile(np.diag([1.0, 50.0]), (9, 1, 1)), draw.standard_normal((9, 2))
    arguments = quadratics(matrices, centres), draw.standard_normal((9, 2)), np.full(2, -5.0), np.full(2, 5.0)
    whole = minimise(*arguments, floats_each=4)
    monkeypatch.setattr(solver, "CHUNK", 8)
    np.testing.assert_array_equal(minimise(*arguments, floats_each=4).points, whole.points)


def test_infeasible_starts_come_back_infinite_and_disturb_nobody():
    inner = quadratics(np.ones((2, 1, 1)), np.array([[1.0], [1.0]]))

    def evaluate(points, rows):
        local = inner(points, rows)
        local.value[points[:, 0] < 0] = np.inf
        return local

    found = minimise(evaluate, np.array([[-3.0], [3.0]]), np.array([-9.0]), np.array([9.0]), floats_each=1)
    assert found.values[0] == np.inf
    assert not found.converged[0]
    np.testing.assert_allclose(found.points[1], 1.0, atol=1e-6)
