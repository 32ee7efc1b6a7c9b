"""Tests what is left out of the output."""

import logging
import warnings

import pytest

from eva_coralbay import _notices


def test_noise_is_left_out_and_news_is_not(caplog: pytest.LogCaptureFixture) -> None:
    known = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _notices.silence()
        warnings.warn("Checkpoint directory /a exists and is not empty.", stacklevel=1)
        warnings.warn("You passed in a `val_dataloader` but have no step.", stacklevel=1)
        warnings.warn("The loss is NaN.", stacklevel=1)
        with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
            known.info("Tip: install [litlogger] for more")
            known.info("TPU available: False, using: 0 TPU cores")
            known.info("GPU available: False")
    assert [str(item.message) for item in caught] == ["The loss is NaN."]
    assert "litlogger" not in caplog.text and "TPU" not in caplog.text
    assert "GPU available" in caplog.text
