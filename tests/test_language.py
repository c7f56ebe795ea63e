"""Names and prose use the field's words, so that readers can search for them.

`python tests/test_language.py PATH ...` lists the places in some files or folders.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("nnbackend", "backends", "tests", "benchmarks", "examples", "docs")
# Pages whose text is made from the code, or is in Spanish.
SKIPPED = {"docs/generated", "docs/es", "tests/test_language.py"}

# Words and phrases that are not the field's own: pattern -> what to write.
BANNED = {
    r"gone on with|go(es|ing)? on with|went on with": "resume",
    r"of (one's|your|their|its|our) own\b(?= (activation|loss|formula|code|rule))": "custom",
    r"one's own": "custom",
    r"in the midst": "during, within",
    r"what there is": "name the thing",
    r"\bdoors?\b": "validation, check",
    r"\bintake\b|\btaken? in\b|\btaking in\b": "prepare",
    r"\btells? (whether|how|what|which|by|the)\b": "returns, says",
    r"\bglanc": "poll, check",
    r"\bteams?\b": "workers",
    r"\bmeetings?\b": "barrier",
    r"the ways round": "deadlock, cycle",
    r"say that (it|they|there) (is|are) none": "raise ... for",
    r"cannot be meant": "invalid",
    r"find(s|ing)? room|found room|have room": "memory, space",
    r"\bwhoever\b|\bnobody's\b|\bsomebody\b": "users, the caller",
    r"must not be taken": "state the rule",
    r"\bshadows?\b": "ema_weights, averaged weights",
    r"\brecipes?\b": "config, options",
    r"\bstory\b|\bstories\b": "explanation",
    r"\blend(s|ing)?\b|\blent\b": "views of",
    r"\bas told\b|\bbe told\b|\btold apart\b|\bis told\b|\bare told\b": "detected, reported",
    r"\bhenceforth\b|\bthereby\b|\bwherein\b|\banew\b|\bperhaps\b": "again, may",
    r"\bbegun anew\b|\bbegin anew\b": "restart",
    r"\blies? idle\b|\bis worth waking\b": "unused",
    r"\bgives? back\b|\bgiven back\b": "release, return",
    r"\bleft behind\b": "remains",
    r"\bhand(s|ed)? itself over\b": "passes itself",
    r"\bwhat mends it\b|\bmends?\b|\bmended\b": "fix, cure",
}
PATTERN = re.compile("|".join(f"(?P<b{i}>{p})" for i, p in enumerate(BANNED)), re.IGNORECASE)
FIRST_WORD = re.compile(r'^\s*[rf]?"""(Give|Gives|Tell|Tells|Say|Says)\b')


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of what people read: a page, or a module's comments and strings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds:
            yield from enumerate(token.string.splitlines(), token.start[0])


def findings(path: Path) -> list[str]:
    """Return a line for each banned phrase in a file."""
    found = []
    for number, line in prose(path):
        for match in PATTERN.finditer(line):
            advice = list(BANNED.values())[int(str(match.lastgroup)[1:])]
            found.append(f"{path}:{number}: {match[0]!r}: write {advice}")
        if FIRST_WORD.match(line):
            found.append(f"{path}:{number}: begin with Return, Compute, Build, Check ...")
    return found


def files(roots: list[Path]) -> Iterator[Path]:
    for root in roots:
        found = [root] if root.is_file() else sorted(root.rglob("*"))
        for path in found:
            name = path.resolve().relative_to(ROOT).as_posix()
            is_skipped = any(name == s or name.startswith(f"{s}/") for s in SKIPPED)
            if path.suffix in {".py", ".md", ".cu"} and path.is_file() and not is_skipped:
                yield path


def test_prose_is_plain_technical_english() -> None:
    pages = ("README.md", "CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md")
    roots = [ROOT / name for name in (*FOLDERS, *pages)]
    assert not [line for path in files(roots) for line in findings(path)]


if __name__ == "__main__":
    for path in files([Path(word) for word in sys.argv[1:]]):
        print(*findings(path), sep="\n", end="\n" if findings(path) else "")
