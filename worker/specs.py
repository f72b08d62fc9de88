"""A spec's model folder, checked to be the one that the job asks for."""

from __future__ import annotations

from mien.errors import ModelError
from mien.model_folder import Model, load_model
from worker.messages import EngineSpec


def model_of(spec: EngineSpec) -> Model:
    """The model folder that a spec names.

    Raises:
        ModelError: the folder is defective, or is not the revision asked for.
    """
    model = load_model(spec.model_folder)
    if model.revision != spec.model_revision:
        raise ModelError(
            f"The model folder {spec.model_folder!r} holds revision {model.revision[:12]}, "
            f"not {spec.model_revision[:12]} as the job asks.",
            code="model_changed",
        )
    return model
