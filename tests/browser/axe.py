"""axe-core looks at a page: what it calls serious or critical fails the test, with what it says about it."""

from __future__ import annotations

from typing import Any

GRAVE = ("serious", "critical")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def assert_accessible(page: Any, where: str = "") -> None:
    """Fail on anything serious that axe finds on the page as it is now, in the theme it has now."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options=RULES).response["violations"]
    grave = [
        f"{rule['id']} ({rule['impact']}): {rule['help']}\n    "
        + "\n    ".join(f"{node['target']} {node['failureSummary']}" for node in rule["nodes"][:4])
        for rule in found
        if rule["impact"] in GRAVE
    ]
    assert not grave, f"axe on {where or page.url}:\n" + "\n".join(grave)
