"""The store of installed models: by name and revision, immutable once there, never removed by an upgrade."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from mien.errors import ModelError
from mien.int8 import RECORD
from mien.model_folder import CropSpec, InputSpec, Model, deciding_files, load_model, revision_of

__all__ = ["CropSpec", "InputSpec", "Model", "ModelStore", "load_model", "revision_of"]

Pairs = list[tuple[str, str]]
"""(name, revision)."""

DEFAULT = "default"
_CHOSEN = "chosen.ref"
_SHIPPED = "shipped.ref"
_PAPERS = ("*.md", "LICENSE*", "NOTICE*", "figures.json", RECORD)
_SHORT = 12


class ModelStore:
    """Models installed as ``DIRECTORY/NAME/REVISION/``. Safe to use from several processes and threads at once.

    ``shipped`` is the folder of the model that comes with Mien; it is the default until an operator chooses another.
    """

    def __init__(self, directory: Path | str, shipped: Path | str | None = None) -> None:
        self.directory = Path(directory)
        self.shipped = None if shipped is None else Path(shipped)
        self._loaded: dict[tuple[str, str], Model] = {}

    def install(self, folder: Path | str) -> Model:
        """Copy a model folder into the store; nothing happens if its revision is there already.

        Raises:
            ModelError: the folder is defective, or the copy failed (``model_store``).
        """
        source = load_model(folder)
        target = self._place(source.name, source.revision)
        if not target.is_dir():
            self._copy(source, target)
        return self._load(source.name, source.revision)

    def list(self) -> list[Model]:
        """All installed models, by name, the revision installed last first."""
        return [self._load(name, revision) for name, revision in self._installed()]

    def revisions(self) -> set[str]:
        """The revisions of all installed models, without reading them."""
        return {revision for _, revision in self._installed()}

    def get(self, ref: str) -> Model:
        """The model for ``default``, ``name``, ``name@revision`` or ``revision`` (8 hex digits or more, if unique).

        A bare name means the shipped revision of that name, else the one installed last.

        Raises:
            ModelError: ``unknown_model``, with the names of those that are installed; ``ambiguous_model``.
        """
        if ref == DEFAULT:
            return self.default()
        name, _, prefix = ref.partition("@")
        installed = self._installed()
        if not prefix:
            same_name = [pair for pair in installed if pair[0] == name]
            if same_name:
                shipped = self._read_ref(_SHIPPED)
                return self._load(*(shipped if shipped in same_name else same_name[0]))
            prefix = ref if len(ref) >= 8 else ""
            found = [pair for pair in installed if prefix and pair[1].startswith(prefix)]
        else:
            found = [pair for pair in installed if pair[0] == name and pair[1].startswith(prefix)]
        if not found:
            raise ModelError(
                f"There is no model {ref!r}; installed: {self._shown(installed)}.", code="unknown_model", field="model"
            )
        if len({revision for _, revision in found}) > 1:
            raise ModelError(
                f"{ref!r} fits more than one model: {self._shown(found)}.", code="ambiguous_model", field="model"
            )
        return self._load(*found[0])

    def default(self) -> Model:
        """The model that is used when none is named: the chosen one, else the shipped one, else the only one.

        Raises:
            ModelError: ``unknown_model``: none is installed, or several and none was chosen.
        """
        for file in (_CHOSEN, _SHIPPED):
            pair = self._read_ref(file)
            if pair is not None:
                return self._load(*pair)
        installed = self._installed()
        if len(installed) == 1:
            return self._load(*installed[0])
        if not installed:
            raise ModelError(
                f"No model is installed in {str(self.directory)!r}; `mien models add` installs one.",
                code="unknown_model",
                field="model",
            )
        raise ModelError(
            f"No default model is chosen; installed: {self._shown(installed)}.", code="unknown_model", field="model"
        )

    def set_default(self, ref: str) -> Model:
        """Make ``ref`` the default model. ``default`` itself goes back to the shipped one."""
        if ref == DEFAULT:
            (self.directory / _CHOSEN).unlink(missing_ok=True)
            return self.default()
        model = self.get(ref)
        self._write_ref(_CHOSEN, model)
        return model

    def ensure_shipped(self) -> Model:
        """Install the shipped model if its revision is not there yet, and give the default model.

        Older revisions stay: jobs refer to them.
        """
        if self.shipped is not None:
            model = self.install(self.shipped)
            if self._read_ref(_SHIPPED) != (model.name, model.revision):
                self._write_ref(_SHIPPED, model)
        return self.default()

    def _place(self, name: str, revision: str) -> Path:
        return self.directory / name / revision

    def _installed(self) -> Pairs:
        pairs = []
        for folder in sorted(self.directory.glob("*/*/")):
            name, revision = folder.parent.name, folder.name
            if len(revision) == 64 and not name.startswith("."):
                pairs.append((name, folder.stat().st_mtime, revision))
        return [(name, revision) for name, _, revision in sorted(pairs, key=lambda p: (p[0], -p[1], p[2]))]

    def _load(self, name: str, revision: str) -> Model:
        model = self._loaded.get((name, revision))
        if model is None:
            model = load_model(self._place(name, revision))
            if model.revision != revision:
                raise ModelError(
                    f"The files in {str(model.folder)!r} are not those that were installed (their revision is "
                    f"{model.revision[:_SHORT]}). Remove that folder and install the model again.",
                    code="model_changed",
                )
            self._loaded[name, revision] = model
        return model

    def _copy(self, source: Model, target: Path) -> None:
        incoming = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # the name has no 64 characters: a copy cut off by a crash is never taken for a model
            incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=target.parent))
            papers = [path for pattern in _PAPERS for path in source.folder.glob(pattern)]
            for path in {*deciding_files(source.folder), *papers}:
                shutil.copyfile(path, incoming / path.name)
            if revision_of(incoming) != source.revision:
                raise ModelError(
                    f"The model folder {str(source.folder)!r} changed while it was copied; try again.",
                    code="model_store",
                )
            incoming.chmod(0o755)
            incoming.rename(target)
        except OSError as error:
            # another process was faster: the same revision is the same content
            if not (error.errno in (errno.EEXIST, errno.ENOTEMPTY) and target.is_dir()):
                raise ModelError(
                    f"The model cannot be copied into {str(self.directory)!r}: {error.strerror}.", code="model_store"
                ) from None
        finally:
            if incoming is not None:
                shutil.rmtree(incoming, ignore_errors=True)

    def _read_ref(self, file: str) -> tuple[str, str] | None:
        try:
            name, _, revision = (self.directory / file).read_text().strip().partition("@")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return (name, revision) if self._place(name, revision).is_dir() else None

    def _write_ref(self, file: str, model: Model) -> None:
        fresh = self.directory / f".{file}.{os.getpid()}"
        try:
            fresh.write_text(f"{model.name}@{model.revision}\n")
            fresh.replace(self.directory / file)
        except OSError as error:
            raise ModelError(
                f"The choice cannot be written into {str(self.directory)!r}: {error.strerror}.", code="model_store"
            ) from None

    @staticmethod
    def _shown(pairs: Pairs) -> str:
        return ", ".join(f"{name}@{revision[:_SHORT]}" for name, revision in pairs) or "none"
