"""Fine-tuning starts from any Hugging Face ViT-like backbone: with or without a head, at another size, shortened."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from mien.errors import ModelError
from training.networks import build_network, encoder_layers, load_classifier, logits_of
from training.recipe import ModelPart
from training.schedule import parameter_groups

SHAPE = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 8}
MLP = {"intermediate_size": 64}


def backbone(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    size: dict[str, Any] = {"image_size": 32, **SHAPE}
    made: Any = {
        "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**size, **MLP)),
        "deit": lambda: transformers.DeiTModel(transformers.DeiTConfig(**size, **MLP)),
        "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**size)),
        "beit": lambda: transformers.BeitModel(transformers.BeitConfig(**size, **MLP, use_relative_position_bias=True)),
    }[kind]()
    made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["vit", "deit", "dinov2", "beit"])
def test_a_backbone_gets_a_head_and_learns(kind: str, tmp_path: Path) -> None:
    source = backbone(kind, tmp_path / kind)
    part = ModelPart(source=str(source), image_size=32, drop_path=0.0)
    model = build_network(part, ("a", "b", "c"))
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}  # type: ignore[union-attr]
    pixels, truth = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2])
    groups = parameter_groups(model, lr=1e-3, layer_decay=0.7, weight_decay=0.0)
    assert len({group["lr"] for group in groups}) == 6  # embeddings, four layers, the head
    optimizer = torch.optim.AdamW(groups)
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(logits_of(model, pixels), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["vit", "deit", "dinov2"])
def test_position_embeddings_are_interpolated_to_another_size(kind: str, tmp_path: Path) -> None:
    source = backbone(kind, tmp_path / kind)
    model = build_network(ModelPart(source=str(source), image_size=48), ("a", "b"))
    assert logits_of(model, torch.randn(2, 3, 48, 48)).shape == (2, 2)
    model.save_pretrained(tmp_path / "saved")  # type: ignore[operator]
    again = load_classifier(str(tmp_path / "saved"))
    pixels = torch.randn(2, 3, 48, 48)
    torch.testing.assert_close(logits_of(again.eval(), pixels), logits_of(model.eval(), pixels))


def test_relative_positions_are_refused_at_another_size(tmp_path: Path) -> None:
    source = backbone("beit", tmp_path / "beit")
    with pytest.raises(ModelError, match="image_size = 32"):
        build_network(ModelPart(source=str(source), image_size=48), ("a", "b"))


def test_a_student_keeps_the_chosen_layers(tmp_path: Path) -> None:
    source = backbone("dinov2", tmp_path / "dinov2")
    whole = load_classifier(str(source), labels=("a", "b"))
    student = build_network(ModelPart(source=str(source), image_size=32, layers=(0, 3)), ("a", "b"))
    (_, _, every), (_, _, kept) = encoder_layers(whole), encoder_layers(student)
    assert len(kept) == 2
    for mine, theirs in zip(kept, (every[0], every[3]), strict=True):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(mine.state_dict()[name], tensor)
    student.save_pretrained(tmp_path / "student")  # type: ignore[operator]
    again = load_classifier(str(tmp_path / "student")).eval()
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(logits_of(again, pixels), logits_of(student.eval(), pixels))


def test_layers_that_the_source_does_not_have_are_refused(tmp_path: Path) -> None:
    source = backbone("vit", tmp_path / "vit")
    with pytest.raises(ModelError, match="layers 0 to 3"):
        build_network(ModelPart(source=str(source), image_size=32, layers=(0, 4)), ("a", "b"))


def test_bare_weights_of_another_head_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="neither"):
        load_classifier(str(tmp_path / "empty"), labels=("a", "b"))


def test_pruning_takes_out_the_layer_that_is_missed_least(tmp_path: Path) -> None:
    from training.prune import prune

    model = load_classifier(str(backbone("dinov2", tmp_path / "dinov2")), labels=("a", "b")).eval()
    _, _, layers = encoder_layers(model)
    for parameter in layers[2].parameters():  # a layer that adds nothing to the residual stream
        torch.nn.init.zeros_(parameter)
    for i in (0, 1, 3):
        for name, parameter in layers[i].named_parameters():
            if "lambda1" in name:
                torch.nn.init.constant_(parameter, 3.0)
    pixels = torch.randn(12, 3, 32, 32)
    truth = logits_of(model, pixels).argmax(dim=1)
    found = prune(model, pixels, truth, keep=2)
    assert [len(chosen) for chosen, _, _ in found] == [4, 3, 2]
    assert found[0][2] == found[1][2] == 1.0
    assert found[1][0] == (0, 1, 3)
    assert len(encoder_layers(model)[2]) == 2
