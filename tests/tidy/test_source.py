"""Rules that no linter holds, over all source files of the project.

One rule: each failure says the file, the line and what to do about it.
"""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted(path for folder in ("tests", "integration") for path in (ROOT / folder).rglob("*.py"))
FILE_LINES = 500
FUNCTION_LINES = 80
LONGER = {"proxy/reql/compiler.py": 600}  # files that may be longer, each with its own limit; it only goes down
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc", "stuff"}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES + TESTS}


def place(path, line=None):
    return f"{path.relative_to(ROOT)}{f':{line}' if line else ''}"


def pure_modules():
    """The files of the modules that the import rule of that name calls pure."""
    for contract in PROJECT["tool"]["importlinter"]["contracts"]:
        if "pure" in contract["name"]:
            for module in contract["source_modules"]:
                path = ROOT / module.replace(".", "/")
                yield from sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def none(found):
    assert not found, "\n" + "\n".join(found)


def test_there_is_something_to_look_at():
    assert len(SOURCES) > 30
    assert len(list(pure_modules())) > 5


def test_every_module_says_why_it_exists():
    none([place(path) for path in SOURCES + TESTS if TREES[path].body and not ast.get_docstring(TREES[path])])


def test_no_file_outgrows_one_reason_to_change():
    found = []
    for path in SOURCES:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        limit = LONGER.get(str(path.relative_to(ROOT)), FILE_LINES)
        if lines > limit:
            found.append(f"{place(path)} has {lines} lines; the limit is {limit}: give part of it a file of its own")
    none(found)


def test_no_function_outgrows_a_screen():
    none(
        [
            f"{place(path, node.lineno)} {node.name} has {node.end_lineno - node.lineno + 1} lines"
            for path in SOURCES
            for node in ast.walk(TREES[path])
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
        ]
    )


def test_no_name_that_says_nothing():
    none([place(path) for path in SOURCES + TESTS if set(re.split(r"[_./]", str(path.relative_to(ROOT)))) & VAGUE])


def test_the_unit_tests_never_sleep():
    units = [path for path in TESTS if path.is_relative_to(ROOT / "tests")]
    none([place(path, line) for path in units for line, name in calls(TREES[path]) if name.split(".")[-1] == "sleep"])


def test_no_test_is_skipped():
    marks = ("pytest.skip", "pytest.mark.skip", "pytest.mark.xfail", "pytest.mark.skipif", "pytest.xfail")
    found = []
    for path in TESTS:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in marks:
                found.append(place(path, node.lineno))
    none(found)


@pytest.mark.parametrize("ending", ["datetime.now", "datetime.utcnow", "uuid.uuid4", "uuid4", "open", "print", "input"])
def test_a_pure_module_asks_the_outside_nothing(ending):
    """What the import rule cannot see."""
    found = []
    for path in pure_modules():
        for line, name in calls(TREES[path]):
            if name == ending or ("." in ending and name.endswith(f".{ending}")):
                found.append(place(path, line))
    none(found)


def test_no_error_is_caught_and_dropped():
    found = []
    for path in SOURCES:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.ExceptHandler):
                kind = ast.unparse(node.type) if node.type else ""
                is_broad = kind in ("", "Exception", "BaseException")
                if is_broad and all(isinstance(step, ast.Pass | ast.Continue) for step in node.body):
                    found.append(place(path, node.lineno))
    none(found)


def test_nothing_is_left_for_later():
    mark = re.compile(r"#\s*(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b|raise NotImplemented" + "Error")
    found = []
    for path in SOURCES + TESTS:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if mark.search(line):
                found.append(place(path, number))
    none(found)


def test_every_library_says_what_it_is_for():
    page = (ROOT / "docs" / "decisions" / "002-libraries.md").read_text(encoding="utf-8").lower()
    names = [re.split(r"[\[<>=;! ]", line)[0] for line in PROJECT["project"]["dependencies"]]
    none([f"{name}: say in docs/decisions/002-libraries.md what it is for" for name in names if name not in page])


def test_every_page_can_be_found():
    """A page in docs/ that no other page links to is one that nobody reads."""
    texts = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    found = []
    for path in texts:
        linked = any(
            f"{path.name})" in text or f"{path.name}#" in text for other, text in texts.items() if other != path
        )
        if path.name != "README.md" and not linked:
            found.append(f"{place(path)}: link it from README.md")
    none(found)


def test_links_between_pages_lead_somewhere():
    found = []
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(folder for folder in ROOT.glob("*/DESIGN.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            if not (path.parent / target).exists():
                found.append(f"{place(path)} links to {target}, which is not there")
    none(found)


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize(("files", "extras"), [(SOURCES, ()), (TESTS, ("dev",))], ids=["sources", "tests"])
def test_what_is_imported_is_declared(files, extras):
    """A package that happens to be there may be missing on the next machine."""
    lines = PROJECT["project"]["dependencies"] + [
        line for extra in extras for line in PROJECT["project"]["optional-dependencies"][extra]
    ]
    declared = {re.split(r"[\[<>=;! ]", line)[0].lower().replace("_", "-") for line in lines}
    declared.add("boto3")  # moto brings the one that fits; asking for it ourselves leaves pip without an answer
    own = {*PACKAGES, "rewinddb", "tests", "integration", "benchmarks"}
    homes = packages_distributions()
    found = set()
    programs = ROOT / "integration" / "drivers"  # run in environments of their own
    for path in files:
        if path.is_relative_to(programs):
            continue
        for module in set(imported(TREES[path])) - own - sys.stdlib_module_names:
            names = {name.lower().replace("_", "-") for name in homes.get(module, [module])}
            if not names & declared:
                found.add(f"{place(path)} imports {module}: declare {' or '.join(sorted(names))} in pyproject.toml")
    none(sorted(found))
