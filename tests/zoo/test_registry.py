import pytest

from reconstruct import ModelError, load_model


def test_unknown_models_are_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"did you mean crelu_conv1_4.*Models: alexnet"):
        load_model("crelu_conv14")
    with pytest.raises(ModelError, match=r"there is no model 'nothing'\. Models: alexnet"):
        load_model("nothing")
    with pytest.raises(ModelError, match=r"no weights.*--random-weights SEED"):
        load_model("avr_conv1_4")
