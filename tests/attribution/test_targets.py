"""Targets as people write them: a name, a function; and lists of methods in one text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import xaicli
from xaicli.errors import UsageError

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 3)


def test_a_function_of_several_numbers_a_row_is_refused(linear: nn.Linear) -> None:
    with pytest.raises(UsageError, match="one number per row"):
        xaicli.saliency(linear, X, methods="gradient", target=lambda outputs: outputs)

    def difference(outputs: Tensor) -> Tensor:
        return (outputs[:, 0] - outputs[:, 2])[:, None]

    found = xaicli.saliency(linear, X, methods="gradient", target=difference)
    wanted = (linear.weight[0] - linear.weight[2]).detach().numpy()
    np.testing.assert_allclose(found.attributions["gradient"], np.tile(wanted, (4, 1)), rtol=1e-6)


def test_a_name_of_two_outputs_is_none(linear: nn.Linear) -> None:
    names = ["a", "b", "a"]
    with pytest.raises(UsageError, match="several outputs are called 'a'") as raised:
        xaicli.saliency(linear, X, methods="gradient", target="a", label_names=names)
    assert "0, 2" in raised.value.hint
    found = xaicli.saliency(linear, X, methods="gradient", target="b", label_names=names)
    assert found.targets.tolist() == [1] * 4


def test_a_label_that_two_outputs_have_is_no_class(linear: nn.Linear) -> None:
    found = xaicli.saliency(
        linear, X, methods="gradient", target="label", labels=["a", "b", "b", "b"], label_names=["a", "b", "a"]
    )
    assert found.targets.tolist()[1:] == [1, 1, 1]
    assert found.targets[0] == linear(X[:1]).argmax()
    assert [note for note in found.answer.warnings if note.startswith("1 of 4 samples have no label")]


def test_methods_in_one_text_as_on_the_command_line(linear: nn.Linear) -> None:
    found = xaicli.saliency(linear, X, methods="gradient, integrated", captum="Saliency,InputXGradient")
    assert set(found.maps) == {"gradient", "integrated", "Saliency", "InputXGradient"}
