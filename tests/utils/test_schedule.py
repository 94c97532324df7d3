import pytest

from monai_synth.utils import epoch_length, num_epochs


@pytest.mark.parametrize(
    ("steps", "epochs", "length"), [(1, 1, 1), (25, 1, 25), (26, 2, 13), (150, 6, 25), (251, 11, 23)]
)
def test_epochs_hold_all_steps(steps, epochs, length):
    assert (num_epochs(steps), epoch_length(steps)) == (epochs, length)
    assert 0 <= epochs * length - steps < epochs
