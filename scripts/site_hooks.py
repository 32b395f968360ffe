"""Hooks of mkdocs: pages of the repository's other files, and mermaid without a network.

Pages in docs/ link to files outside of it, such as tests and examples, with links that work in the repository. The
site has a page for each linked file, so that no link leaves it.
"""

import ast
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security.md",
}
"""Files outside of docs/ that have a page of their own in the navigation."""
LINK: Final = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]*)(#[^)\s]*)?(?=\))")
FENCE: Final = re.compile(r"^[ \t]*(?P<ticks>`{3,})[^\n]*\n.*?^[ \t]*(?P=ticks)[ \t]*$", re.MULTILINE | re.DOTALL)
LANGUAGES: Final = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".lua": "lua"}
SHOWN_BY: Final = re.compile(r"^Shown by (?:.+\n)+", re.MULTILINE)
MERMAID: Final = "assets/mermaid.min.js"
SCRIPTS_OF_DIAGRAMS: Final = re.compile(r'<script src="[^"]*assets/(mermaid\.min|site)\.js"></script>')

_repository_paths: dict[str, str] = {}
"""The path in the repository of each page that is generated, by the path of the page in the site."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add mermaid, the picture, and a page for each file outside of docs/ that a page links to."""
    mermaid = Path(os.environ.get("MERMAID", ROOT / ".venv" / "mermaid.min.js"))
    if str(mermaid) == "none":
        files.append(File.generated(config, MERMAID, content=""))
    elif mermaid.exists():
        files.append(File.generated(config, MERMAID, abs_src_path=str(mermaid)))
    else:
        raise PluginError(f"{mermaid} is missing: run 'make docs', which installs it")
    found = {path: page for path, page in PAGES.items() if page not in files.src_uris}
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    texts |= {path: (ROOT / path).read_text("utf-8") for path in found}
    while texts:
        for path, text in [*texts.items()]:
            del texts[path]
            for target in _targets(path, text):
                if target.startswith("docs/") or target in found or target in PAGES:
                    continue
                if not (ROOT / target).exists():
                    raise PluginError(f"{path} links to {target}, which does not exist")
                found[target] = f"source/{target.removesuffix('.md')}.md"
                texts[target] = _content(target)
    for path, page in found.items():
        files.append(File.generated(config, page, content=_content(path)))
        _repository_paths[page] = path
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  mkdocs' signature
    """Rewrite the links of a page from the repository's paths to the site's."""
    uri = page.file.src_uri
    path = _repository_paths.get(uri, f"docs/{uri}")
    sites = {source: generated for generated, source in _repository_paths.items()}

    def rewritten(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        site = PAGES.get(target) or sites.get(target) or target.removeprefix("docs/")
        return posixpath.relpath(site, posixpath.dirname(uri) or ".") + (match[2] or "")

    if uri == "guarantees.md":
        markdown = SHOWN_BY.sub(_tests, markdown)
    pieces, end = [], 0
    for code in FENCE.finditer(markdown):
        pieces += [LINK.sub(rewritten, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*pieces, LINK.sub(rewritten, markdown[end:])])


def _tests(match: re.Match[str]) -> str:
    """Add the statements of the tests that a paragraph names."""
    lines: list[str] = []
    for link in LINK.finditer(match[0]):
        for node in ast.parse((ROOT / "docs" / link[1]).read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                statement = " ".join((ast.get_docstring(node) or "").split())
                lines.append(f"    - {statement} `{node.name}`")
    return f'{match[0]}\n??? note "What the {len(lines)} tests show"\n\n' + "\n".join(lines) + "\n\n"


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001  mkdocs' signature
    """Load mermaid on pages with diagrams only: it is large."""
    return output if 'class="mermaid"' in output else SCRIPTS_OF_DIAGRAMS.sub("", output)


def _targets(path: str, text: str) -> Iterator[str]:
    for match in LINK.finditer(FENCE.sub("", text)):
        yield posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))


def _content(path: str) -> str:
    """Return the page of a file: Markdown as it is, a folder as a list of links, anything else as a block of code."""
    file = ROOT / path
    if path in PAGES:
        return file.read_text("utf-8")
    if path.endswith(".md"):
        return f"---\nsearch:\n  exclude: true\n---\n\n{file.read_text('utf-8')}"
    if file.is_dir():
        names = sorted(found.name for found in file.iterdir() if found.suffix in {*LANGUAGES, ".md"})
        body = "\n".join(f"- [{name}]({file.name}/{name})" for name in names)
    else:
        body = f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text('utf-8')}\n````"
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{body}\n"


def on_config(config: MkDocsConfig) -> Any:  # noqa: ANN401  mkdocs' signature
    """Forget the pages of an earlier build, for `mkdocs serve`."""
    _repository_paths.clear()
    return config
