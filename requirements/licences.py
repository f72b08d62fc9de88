"""docs/licences.md: under which licence each package stands, as its own metadata declare it.

``python requirements/licences.py`` writes the page; every package of the locks has to be installed for this platform
(`make test` installs them), but those of OTHERWISE.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
PAGE = FOLDER.parent / "docs" / "licences.md"
UNKNOWN = "unknown"
OTHERWISE = {
    "async-timeout": "Apache-2.0",
    "axe-playwright-python": "MIT, MPL-2.0",  # its LICENSE file, and that of axe-core, which it holds
    "colorama": "BSD-3-Clause",
    "httpx2-jsfetch": "BSD-3-Clause",
    "tzdata": "Apache-2.0",
}
"""Packages that other Pythons or systems alone install, or whose metadata are silent, with what their files say."""
NAMES = {
    "0BSD": "0BSD",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache License v2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache Software License 2.0": "Apache-2.0",
    "Apache-2": "Apache-2.0",
    "BSD 3-Clause License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "New BSD": "BSD-3-Clause",
    "BSD License": "BSD",
    "BSD-3": "BSD-3-Clause",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0",
    "MIT License": "MIT",
    "The MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "MPL 2.0": "MPL-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""What licences are called in metadata older than SPDX expressions."""
IDENTIFIER = re.compile(r"[A-Za-z0-9.+-]+(?: (?:OR|AND|WITH) [A-Za-z0-9.+-]+)*")
SAYS_NOTHING = {"Dual License", "OSI Approved", "UNKNOWN", "LICENSE"}

HEAD = """# Licences

Mien itself is under Apache-2.0 ([LICENSE](../LICENSE)); what is copied into the repository, with its terms, is in
[NOTICE](../NOTICE). This page lists the packages that Mien uses; each is installed from its own publisher and is not
part of Mien. `python requirements/licences.py` writes the page from what the packages declare themselves. "BSD" alone
means that a package does not say which of the BSD licences it means, a comma that it declares more than one thing.

Weak copyleft among those that are installed by default: certifi and pathspec (MPL-2.0), psycopg (LGPL-3.0), and the
wheel of pi-heif, which holds libheif (LGPL-3.0). Mien uses them unchanged, as libraries that you can replace.
"""
TORCH = """
torch comes with the extras `cuda`, `models` and `training`, in the build that fits the machine, and so stands in no
lock: it is under BSD-3-Clause, parts of it under Apache-2.0, BSD-2-Clause, BSL-1.0 and MIT. Its builds for CUDA bring
NVIDIA's libraries, which are under NVIDIA's own terms.
"""


def locked(lock: str) -> list[str]:
    """The names of the packages in ``requirements/LOCK.lock``."""
    lines = (FOLDER / f"{lock}.lock").read_text().splitlines()
    return sorted({line.partition("==")[0] for line in lines if "==" in line})


def licence(package: str) -> str:
    """The licence as the package declares it: its SPDX expression, else its older fields; ``unknown`` if neither."""
    try:
        facts = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return OTHERWISE.get(package, UNKNOWN)
    if "License-Expression" in facts:
        return str(facts["License-Expression"])
    classifiers = [c for c in facts.get_all("Classifier") or [] if c.startswith("License ::")]
    field = str(facts["License"]).strip().partition("\n")[0] if "License" in facts else ""
    declared = {_name(text) for text in (field, *(c.rpartition(" :: ")[2] for c in classifiers))} - {""}
    if any(name.startswith("BSD-") for name in declared):
        declared.discard("BSD")
    return ", ".join(sorted(declared)) or OTHERWISE.get(package, UNKNOWN)


def _name(text: str) -> str:
    """SPDX's identifier for what a licence is called; empty where that says nothing."""
    if text in SAYS_NOTHING:
        return ""
    if text in NAMES:
        return NAMES[text]
    return text if IDENTIFIER.fullmatch(text) else ""


def page() -> str:
    """The text of docs/licences.md."""
    default = locked("default")
    further = sorted({name for lock in ("cuda", "check", "test") for name in locked(lock)} - set(default))
    return "\n".join([
        HEAD, "## Installed by default, and to build it", "", *_table(default),
        "", "## With extras, and for development", TORCH, *_table(further), "",
    ])  # fmt: skip


def _table(packages: list[str]) -> list[str]:
    return ["| package | licence |", "| --- | --- |", *(f"| {name} | {licence(name)} |" for name in packages)]


if __name__ == "__main__":
    PAGE.write_text(page())
