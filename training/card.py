"""Model cards: what a model is, where it comes from, how good it is, what it is not for. Hugging Face's YAML on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mien.int8 import Int8Cost
    from training.calibrate import VoteCalibration
    from training.metrics import Scores
    from training.package import Packaged

_LIMITS = """## Intended use and limits

Reading the expression that a face shows in a photograph, for research and for sorting one's own pictures. A label is
the word that raters would choose for the expression, not what the person feels. Not for decisions about people (hiring,
policing, schooling, health), not for identity, and not for video, action units, valence or arousal. Rare expressions
are read far less surely than common ones; see the figures per label. The photographs come mostly from the web and the
press: faces of children, old people, and people outside Europe and North America are fewer, and the figures say nothing
about each of these groups.
"""


def yaml_header(content: Mapping[str, Any]) -> str:
    """The metadata block of a card. Values are texts, lists of texts, or one level of mappings."""
    lines = ["---"]
    for key, value in content.items():
        if isinstance(value, (list, tuple)):
            lines += [f"{key}:", *(f"- {_quoted(entry)}" for entry in value)]
        else:
            lines.append(f"{key}: {_quoted(value)}")
    return "\n".join([*lines, "---", ""])


def adopted_card(made: Packaged, *, origin: str, config: Mapping[str, Any], cost: Int8Cost | None) -> str:
    """The card of a checkpoint that was added, not trained here."""
    model = made.model
    header = yaml_header(
        {"library_name": "transformers", "pipeline_tag": "image-classification", "tags": ["mien"], "base_model": origin}
    )
    parts = [
        header,
        f"# {model.name}\n\nAdded from `{origin}` ({config.get('model_type', 'unknown type')}), packaged for Mien. "
        "Its licence and its limits are those of the original; read its own card.\n",
        f"Labels: {', '.join(model.labels)}.\n",
        _crops(made),
    ]
    if model.notes:
        parts.append(f"**{model.notes}** Whether these fit the checkpoint's training has not been checked.\n")
    if cost is not None:
        parts.append(
            f"int8: accuracy {cost.accuracy_int8:.4f} against {cost.accuracy_fp32:.4f} in fp32 on {cost.images} images "
            "that did not set its scales.\n"
        )
    else:
        parts.append("There is no int8 export: its static scales need images (`--calibrate FOLDER`).\n")
    return "\n".join(parts)


def trained_card(
    made: Packaged,
    *,
    header: Mapping[str, Any],
    about: str,
    data: str,
    procedure: str,
    figures: Sequence[tuple[str, Scores, VoteCalibration | None]],
    more: str = "",
) -> str:
    """The card of a model trained here.

    Args:
        figures: (what was judged, how, its scores, its calibration against votes).
    """
    parts = [
        yaml_header(header),
        f"# {made.model.name}\n\n{about}\n",
        f"Labels: {', '.join(made.model.labels)}.\n",
        _crops(made),
        f"## Data and its terms\n\n{data}\n",
        f"## Procedure\n\n{procedure}\n",
        f"## Figures\n\n{figures_table(figures)}\n",
        *(f"### {name}\n\n{labels_table(scores)}\n" for name, scores, _ in figures if "int8" not in name),
        more,
        _LIMITS,
    ]
    return "\n".join(part for part in parts if part)


def figures_table(figures: Sequence[tuple[str, Scores, VoteCalibration | None]]) -> str:
    """All judgements, one row each."""
    rows = [
        "| judged on | images | accuracy (95%) | balanced accuracy (95%) | macro F1 | AUC | log loss | ECE |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| {name} | {s.images:,} | {_share(s.accuracy, s.accuracy_interval)} "
        f"| {_share(s.balanced_accuracy, s.balanced_accuracy_interval)} | {s.macro_f1:.3f} "
        f"| {f'{s.macro_auc:.3f}' if s.macro_auc is not None else ''} | {s.log_loss:.3f} | {s.ece:.3f} |"
        for name, s, _ in figures
    ]
    rows += [
        f"\n{name}: a probability is the share of raters who would choose the label. Confidence and share of votes for "
        f"the predicted label differ by {v.vote_gap:.3f} on average over bins ({v.images:,} images, `unclear` ones "
        f"included). Jensen-Shannon divergence from the votes {v.divergence:.3f}, from half of the raters "
        f"{v.divergence_half:.3f}, between two halves of the raters {v.divergence_raters:.3f} nats."
        for name, _, v in figures
        if v is not None
    ]
    return "\n".join(rows)


def labels_table(scores: Scores) -> str:
    """Precision, recall, F1 and AUC of each label."""
    rows = ["| label | images | precision | recall | F1 | AUC |", "| --- | --- | --- | --- | --- | --- |"]
    rows += [
        f"| {s.label} | {s.images} | {s.precision:.3f} | {s.recall:.3f} | {s.f1:.3f} | "
        f"{f'{s.auc:.3f}' if s.auc is not None else ''} |"
        for s in scores.per_label
    ]
    return "\n".join(rows)


def _crops(made: Packaged) -> str:
    spec, crop = made.model.input, made.model.crop
    how = "to this size" if spec.resize == "exact" else f"by the shorter side to {spec.shortest_edge}, then the middle"
    return (
        f"Input {spec.height} x {spec.width}, {how}, {spec.resample}; "
        f"crops are {'grey' if crop.grey else 'in colour'}, the square around the detector's box with a margin of "
        f"{crop.margin} of its longer side. Revision "
        f"`{made.model.revision[:16]}`. The ONNX export agrees with torch within {made.export_difference:.1e} in every "
        "probability; its weights are those of `model.safetensors`, to which it refers: keep the files together.\n"
    )


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{100 * value:.1f}% ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})"


def _quoted(value: object) -> str:
    text = str(value)
    return f'"{text}"' if any(character in text for character in ":#@{}[]") else text
