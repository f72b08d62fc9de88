import pytest
import torch

from mien.errors import ModelError
from training.recipe import ModelPart
from training.vit import hugging_face_name, to_hugging_face, vit_from_scratch

PART = ModelPart(kind="vit", image_size=20, patch_size=5, hidden=24, depth=3, heads=2, drop_path=0.2, dropout=0.1)


def test_logits_equal_those_of_transformers_model() -> None:
    torch.manual_seed(0)
    ours = vit_from_scratch(PART, ("happy", "sad", "surprise")).eval()
    for parameter in ours.parameters():  # no weight is zero or one by its initialisation
        torch.nn.init.normal_(parameter, std=0.3)
    theirs = to_hugging_face(ours)
    pixels = torch.randn(5, 3, 20, 20)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixel_values=pixels).logits, atol=1e-5, rtol=0)
    assert theirs.config.id2label == {0: "happy", 1: "sad", 2: "surprise"}


def test_names_map_one_to_one() -> None:
    ours = vit_from_scratch(PART, ("a", "b"))
    names = [hugging_face_name(name) for name in ours.state_dict()]
    assert len(set(names)) == len(names)
    assert set(names) == set(to_hugging_face(ours).state_dict())


def test_stochastic_depth_works_in_training_only() -> None:
    torch.manual_seed(0)
    model = vit_from_scratch(PART, ("a", "b"))
    pixels = torch.randn(4, 3, 20, 20)
    model.train()
    assert not torch.equal(model(pixels), model(pixels))
    model.eval()
    assert torch.equal(model(pixels), model(pixels))


@pytest.mark.parametrize(("field", "value"), [("patch_size", 6), ("heads", 5)])
def test_shapes_that_do_not_fit_are_refused(field: str, value: int) -> None:
    with pytest.raises(ModelError, match="not a multiple"):
        vit_from_scratch(PART.model_copy(update={field: value}), ("a", "b"))
