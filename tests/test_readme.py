"""What the README and the docs show runs as printed, and leads somewhere."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import typer

import reconstruct
from reconstruct.commands.common import COMMANDS
from reconstruct.commands.main import app
from tests.builders.results_folder import random_rows, save
from tests.conftest import ROOT, SAMPLES

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CANNOT_RUN: dict[str, str] = {
    "docs/deepinv.md-0": "needs deepinv: tests/operators/test_as_deepinv.py runs it",
    "docs/formats.md-0": "needs what the command before it writes: tests/zoo/test_import_onnx.py runs the page",
    "docs/formats.md-2": "is PyTorch's exporter, which warns of its age: tests/zoo/test_import_onnx.py runs the page",
}
"""Python examples that need what is not at hand, by page and number, and the reason."""

PROGRAM = re.compile(r"^(?:\w+=\S+ )*(?:\.venv/bin/)?(?:torchrun .*? -m )?reconstruct(?= )")
"""What a command line begins with: variables, and torchrun in place of the script."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples() -> list[Any]:
    """Every block of Python, whatever it is called."""
    return [
        pytest.param(f"{name_of(page)}-{number}", block, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, (language, block) in enumerate(re.findall(r"```(\w+)[^\n]*\n(.*?)```", page.read_text(), re.DOTALL))
        if language in ("python", "py", "python3")
    ]


@pytest.mark.parametrize(("name", "example"), examples())
def test_python_examples_run(name: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := CANNOT_RUN.get(name):
        pytest.skip(reason)
    # What the pages suppose to be there: a photograph, and the results of an evaluation.
    shutil.copy(ROOT / "samples" / "coffee.jpg", tmp_path / "photo.jpg")
    save(tmp_path / "results", random_rows(4, ["conv1"], ["map"], seed=0))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    names: dict[str, Any] = {}
    exec(example, names)
    # Each writes what it says it writes.
    assert {path.name for path in set(tmp_path.iterdir()) - before} == set(re.findall(r'save\w*\(.*?"(.*?)"', example))
    if "features" in names:
        assert names["result"].image.shape[1:] == names["image"].shape[-3:]


def test_none_is_left_out() -> None:
    """The README's, and those of the pages that have had some; each exception is still there to be excepted."""
    found = {example.id.rpartition("-")[0] for example in examples()}
    assert found >= {
        "README.md",
        "docs/index.md",
        "docs/methods.md",
        "docs/gpu.md",
        "docs/paper.md",
        "docs/evaluation.md",
    }
    assert set(CANNOT_RUN) <= {example.values[0] for example in examples()}


def command_lines(text: str) -> Iterator[str]:
    """What follows ``reconstruct`` in a page's blocks, its comments and its text, continued lines joined."""
    text = re.sub(r"\\\n\s+", " ", text)
    blocks = re.findall(r"^ {4}(\S.*)$", text, flags=re.MULTILINE)
    blocks += [
        line for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL) for line in block.split("\n")
    ]
    blocks += re.findall(r"<!-- (.*?) -->", text)
    inline = [re.sub(r"\s+", " ", each) for each in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    # In the text a command may stand without the program.
    inline = [f"reconstruct {each}" if each.split(" ")[0] in COMMANDS and " --" in each else each for each in inline]
    for line in blocks + inline:
        if found := PROGRAM.match(line):
            arguments = re.sub(r"\s+#.*$", "", line[found.end() :]).strip()
            # A command that is only named has nothing to parse.
            if arguments.removesuffix("...").strip() not in (*COMMANDS, ""):
                yield arguments.removesuffix("...")


def parse(arguments: str) -> Any:
    """As the command line does, without running anything: the command and what its parameters are.

    Raises
    ------
    Whatever Click says of options that do not exist, of values of a wrong type and of arguments that lack.
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context("reconstruct", shlex.split(arguments))
    while hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
    return context


LINES = sorted({(name_of(page), line) for page in PAGES for line in command_lines(page.read_text())})


def test_command_lines_are_understood() -> None:
    wrong = {}
    for page, line in LINES:
        if line == "--install-completion":  # which would write into the home of whoever runs the tests
            continue
        if line.endswith("--help"):
            line = line.removesuffix("--help")  # which would print it  # noqa: PLW2901
            assert line.strip() in (*COMMANDS, "", "COMMAND")
            continue
        try:
            parse(line)
        except Exception as error:
            wrong[page, line] = getattr(error, "message", repr(error))
    assert wrong == {}
    # Pages that show none, or a pattern above that finds none, would pass as well.
    assert len(LINES) > 50
    for word in (
        "invert --help",
        "analyze spectrum --output paper",
        "models import",
        "--engine ray",
        "--teacher",
        "--noise 0.01",
    ):
        assert any(word in line for _, line in LINES), word


def test_the_table_of_the_first_page_is_what_the_benchmark_wrote() -> None:
    """Mean and standard deviation of five photographs, from the file that the table is said to be of."""
    rows = json.loads((ROOT / "docs" / "figures" / "fidelity.json").read_text())
    page = (ROOT / "README.md").read_text()
    for layer in ("conv1", "conv2", "conv3", "conv4"):
        cells = []
        for method, budget in (("map", 450), ("gradient", 450), ("linear", None)):
            own = [row for row in rows if (row["layer"], row["method"], row["budget"]) == (layer, method, budget)]
            assert len(own) == 5
            psnr, ssim = ([row[name] for row in own] for name in ("psnr", "ssim"))
            cells.append(f"{mean(psnr):.1f} ± {stdev(psnr):.1f} / {mean(ssim):.2f} ± {stdev(ssim):.2f}")
        assert f"| {layer} | **{cells[0]}** | {cells[1]} | {cells[2]} |" in page
    flat = []
    for path in SAMPLES:
        image = reconstruct.load_image(path, 227)[None]
        judged = reconstruct.quality(image, image.mean((2, 3), keepdim=True).expand_as(image))
        flat.append((judged.psnr[0], judged.ssim[0]))
    psnr, ssim = zip(*flat, strict=True)
    row = f"{mean(psnr):.1f} ± {stdev(psnr):.1f} / {mean(ssim):.2f} ± {stdev(ssim):.2f}"
    assert f"| a flat picture of the mean colour | {row} | | |" in page


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("photo.jpg --model m --layer conv1 --methods map", "No such option"),
        ("photo.jpg --model m", "Missing parameter: layer"),
        ("photo.jpg --model m --layer conv1 --budget much", "valid number"),
        ("analyze pears --model m", "No such command"),
        ("bounds --model m --layer pool1", "Missing parameter: images"),
    ],
)
def test_a_line_that_has_drifted_is_found(line: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        parse(line)


def test_values_arrive() -> None:
    context = parse("evaluate val --model m --layer conv3 --output results --engine ray --workers 4")
    assert (context.info_name, context.params["workers"], context.params["output"]) == ("evaluate", 4, Path("results"))
    assert parse("a.jpg b.jpg --model m --layer conv1").info_name == "invert"


def test_options_that_the_text_names_exist() -> None:
    """Each is an option of some command, or of pip, make's or the benchmarks' lines that pages show."""
    known: set[str] = set()
    waiting = [typer.main.get_command(app)]
    while waiting:
        command: Any = waiting.pop()
        known |= {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        waiting += getattr(command, "commands", {}).values()
    scripts = " ".join(
        path.read_text() for folder in ("benchmarks", "recipes") for path in (ROOT / folder).glob("*.py")
    )
    known |= set(re.findall(r'"(--[a-z-]+)"', scripts)) | {"--generate", "--head", "--port", "--address", "--help"}
    for page in PAGES:
        for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", page.read_text()):
            for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", code):
                assert option in known, (name_of(page), code)


def test_the_headings_that_pages_point_to_are_there() -> None:
    """A heading's anchor: lower case, no punctuation but hyphens, hyphens for spaces."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            headings = re.findall(r"^#+ (.+)$", (page.parent / target if target else page).read_text(), flags=re.M)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, (page.name, target, anchor)


def test_the_files_it_points_to_are_there() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)


def test_every_page_and_every_public_name_is_in_the_site() -> None:
    """The navigation names each page once; the reference each public name, and modules that exist."""
    navigation = re.findall(r"^ +- [^#\n]*?: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)
    assert sorted(navigation) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES[1:])
    shown = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "reference" / "public.md").read_text(), flags=re.MULTILINE)
    assert sorted(shown) == sorted(f"reconstruct.{name}" for name in reconstruct.__all__ if name != "__version__")
    for page in PAGES:
        for name in re.findall(r"^::: reconstruct\.(\S+)$", page.read_text(), flags=re.MULTILINE):
            path = ROOT / "reconstruct" / name.replace(".", "/")
            assert hasattr(reconstruct, name) or path.with_suffix(".py").is_file() or path.is_dir(), name
    package = ROOT / "reconstruct"
    modules = [path for path in (package / "analysis").rglob("*.py") if path.stem != "__init__"]
    analyses = {".".join(path.relative_to(package).with_suffix("").parts) for path in modules}
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    assert analyses <= set(re.findall(r"^::: reconstruct\.(\S+)$", reference, flags=re.MULTILINE))
