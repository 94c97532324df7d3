import pytest
import torch

from monai_synth.inferers import HalvingInferer


def limited(most, sizes):
    def network(x, factor):
        sizes.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError(f"{len(x)} do not fit")
        return x * factor

    return network


def test_what_fits_is_found_once_and_nothing_changes(caplog):
    inferer, sizes, x = HalvingInferer(), [], torch.rand(7, 3)
    assert torch.equal(inferer(x, limited(2, sizes), 3.0), x * 3)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1] and "3 images at once need more memory than there is" in caplog.text
    sizes.clear()
    assert torch.equal(inferer(x[:2], limited(2, sizes), 3.0), x[:2] * 3) and sizes == [1, 1]
    sizes.clear()
    assert torch.equal(HalvingInferer()(x, limited(7, sizes), 3.0), x * 3) and sizes == [7]


def test_one_image_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError, match="1 do not fit"):
        HalvingInferer()(torch.rand(3, 3), limited(0, []), 1.0)
