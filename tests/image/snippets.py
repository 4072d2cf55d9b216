"""The commands of docs/install.md, so that what is tested is what is written there."""

import re

from support import REPOSITORY

PAGE = REPOSITORY / "docs/install.md"


def of(heading: str) -> list[str]:
    """The shell snippets under a heading, in order."""
    sections = re.split(r"^(##+ .*)$", PAGE.read_text(), flags=re.MULTILINE)
    for title, text in zip(sections[1::2], sections[2::2], strict=True):
        if title.lstrip("# ") == heading:
            found = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
            assert found, f"nothing to run under {heading}"
            return found
    raise AssertionError(f"{PAGE} has no heading {heading}")


def headings() -> set[str]:
    """All headings under which there is something to run."""
    sections = re.split(r"^(##+ .*)$", PAGE.read_text(), flags=re.MULTILINE)
    return {title.lstrip("# ") for title, text in zip(sections[1::2], sections[2::2], strict=True) if "```sh\n" in text}
