"""Pictures for TensorBoard."""

import numpy as np

from p3d_regression.training.images import pictures


def drawn(labels: np.ndarray, output: np.ndarray, **more: object) -> dict[str, np.ndarray]:
    predicted = list(range(labels.shape[1]))
    return dict(pictures(labels, output, predicted, **more))  # type: ignore[arg-type]


def test_label_and_prediction_have_the_labels_scale() -> None:
    labels = np.array([[2.0, 4.0], [6.0, 10.0]]).reshape(1, 1, 1, 2, 2)
    output = labels + np.array([[0.0, 4.0], [-8.0, 800.0]])
    shown = drawn(labels, output)
    assert shown.keys() == {f"{kind}/batch_0/slice_0" for kind in ("targets", "predictions", "errors")}
    np.testing.assert_allclose(shown["targets/batch_0/slice_0"], [[[0, 0.25], [0.5, 1]]])
    np.testing.assert_allclose(shown["predictions/batch_0/slice_0"], [[[0, 0.75], [0, 1]]])
    np.testing.assert_allclose(shown["errors/batch_0/slice_0"], [[[0.5, 0.75], [0, 1]]])
    assert {picture.dtype for picture in shown.values()} == {np.dtype(np.float32)}


def test_what_does_not_count_does_not_set_the_scale() -> None:
    labels = np.array([0.0, 1.0, -1000.0, np.nan]).reshape(1, 1, 1, 1, 4)
    counts = labels != -1000.0
    shown = drawn(labels, np.zeros_like(labels), counts=counts)
    assert shown["targets/batch_0/slice_0"].ravel().tolist() == [0, 1, 0, 0]
    assert shown["errors/batch_0/slice_0"].ravel().tolist() == [0.5, 0, 0.5, 0.5]


def test_constant_labels_and_broken_outputs_can_be_drawn() -> None:
    labels = np.full((1, 1, 1, 1, 3), 7.0)
    output = np.array([np.nan, np.inf, -np.inf]).reshape(labels.shape)
    shown = drawn(labels, output)
    assert shown["targets/batch_0/slice_0"].ravel().tolist() == [0.5] * 3
    assert shown["predictions/batch_0/slice_0"].ravel().tolist() == [0, 1, 0]
    nothing = drawn(np.full_like(labels, np.nan), output)
    assert nothing["targets/batch_0/slice_0"].ravel().tolist() == [0] * 3


def test_every_channel_of_every_patch_in_the_middle() -> None:
    labels = np.random.default_rng(0).random((2, 2, 5, 3, 3))
    shown = drawn(labels, labels)
    assert len(shown) == 2 * 2 * 3
    assert "errors/batch_1/channel_1/slice_2" in shown


def test_outputs_that_predict_no_label_are_drawn_on_their_own() -> None:
    output = np.random.default_rng(0).random((1, 2, 1, 3, 3))
    shown = dict(pictures(output[:, :1], output, [0]))
    assert set(shown["others/batch_0/channel_1/slice_0"].ravel()) >= {0.0, 1.0}
