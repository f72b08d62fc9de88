"""Shell commands as the pages write them, taken apart into words."""

from __future__ import annotations

import re
import shlex

_SEPARATORS = {"|", "||", "&&", ";", "&", "(", ")"}
_REDIRECTIONS = {"<", ">", ">>"}
_INNER = re.compile(r"\$\(([^()]*)\)")
_ASSIGNMENT = re.compile(r"\w+=")


def simple_commands(line: str) -> list[list[str]]:
    """The commands in a line, each as its words: those of pipes, of lists and inside ``$( )``; no assignments."""
    found: list[list[str]] = []
    line = line.replace("\\\n", " ")
    while inner := _INNER.search(line):
        found += simple_commands(inner[1])
        line = line[: inner.start()] + "VALUE" + line[inner.end() :]
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if skip:
            skip = False
        elif word in _REDIRECTIONS:
            skip = True
        elif word in _SEPARATORS:
            found += [words] if words else []
            words = []
        elif words or not _ASSIGNMENT.match(word):
            words.append(word)
    return found
