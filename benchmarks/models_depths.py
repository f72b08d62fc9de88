"""Package the teacher at several depths without training it further, for the table of models.

    MIEN_DATA=folder MIEN_TEACHER=folder python -m benchmarks.models_depths OUT 12 6

Which layers stay is what `python -m training.prune` found: 0, 1, 3, 4, 7, 8 of twelve are the last six to go.
"""

from __future__ import annotations

from pathlib import Path

import click

from mien.model_folder import CropSpec
from training.networks import build_network
from training.package import specs_of, training_crops, write_package
from training.recipe import load_recipe

RECIPE = Path(__file__).parent.parent / "training" / "recipes" / "default.toml"
MARGIN = 0.05
LAYERS = {
    12: (),
    11: tuple(range(11)),
    10: (0, 1, 2, 3, 4, 5, 6, 7, 8, 10),
    9: (0, 1, 2, 3, 4, 5, 7, 8, 10),
    8: (0, 1, 2, 3, 4, 5, 7, 8),
    7: (0, 1, 3, 4, 5, 7, 8),
    6: (0, 1, 3, 4, 7, 8),
}


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("depths", nargs=-1, required=True, type=click.Choice([str(depth) for depth in LAYERS]))
def main(out: Path, depths: tuple[str, ...]) -> None:
    """Write OUT/teacher-DEPTH for each of DEPTHS."""
    recipe = load_recipe(RECIPE)
    spec, crop = specs_of(recipe)
    crops = training_crops(recipe, out / "cache", labels=recipe.labels)
    for depth in map(int, depths):
        model = build_network(recipe.model.model_copy(update={"layers": LAYERS[depth]}), recipe.labels)
        name = f"teacher-{depth}"
        made = write_package(
            model,
            out / name,
            name=name,
            spec=spec,
            crop=CropSpec(MARGIN, crop.grey),
            probe=crops[:16],
            calibration=crops,
        )
        print(f"{made.model.folder}: {made.megabytes}")


if __name__ == "__main__":
    main()
