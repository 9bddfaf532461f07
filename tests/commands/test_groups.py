"""Help, examples, and what was meant where a word is mistyped."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from reconstruct.commands.common import COMMANDS
from reconstruct.commands.main import app
from tests.builders.command_line import SAMPLE, refused
from tests.conftest import Call


def commands() -> dict[str, Any]:
    """Every command by the words that call it, those of groups too."""
    found = {}
    waiting = [("reconstruct", typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        within = getattr(command, "commands", {})
        found |= {} if within else {words: command}
        waiting += [(f"{words} {name}", each) for name, each in within.items()]
    return found


def test_the_groups_name_each_command() -> None:
    assert set(typer.main.get_command(app).commands) == set(COMMANDS)  # type: ignore[attr-defined]


def test_every_command_has_an_example_that_is_its_own_and_is_understood() -> None:
    known = commands()
    assert len(known) > 18
    for words, command in known.items():
        calls = [line.strip() for line in command.epilog.splitlines()[2:]]
        assert calls, words
        for call in calls:
            program, *arguments = shlex.split(call)
            context: Any = typer.main.get_command(app).make_context(program, arguments)
            group: Any = context.command
            path = [program]
            while hasattr(group, "resolve_command"):
                name, group, arguments = group.resolve_command(context, [*context._protected_args, *context.args])
                context = group.make_context(name, arguments, parent=context)
                path.append(name)
            assert " ".join(path) == words, call


def test_no_description_is_cut(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["--help"], ["analyze", "--help"], ["models", "--help"]):
        status, out, err = call(*words)
        assert (status, err) == (0, "")
        assert "..." not in out.replace("IMAGE...", "").replace("[ARGS]...", "")
    assert "a summary and a page. The same call goes on where it was stopped." in " ".join(call("--help")[1].split())


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("modles", "'reconstruct models'"),
        ("evalaute folder --model m", "'reconstruct evaluate'"),
        ("doctr", "'reconstruct doctor'"),
        ("models exprt crelu_conv1_4", "'reconstruct models export'"),
        ("rectify photo.jpg", "'reconstruct analyze rectify'"),
    ],
)
def test_a_mistyped_command(words: str, meant: str, call: Call) -> None:
    err = refused(call, *words.split())
    assert f"did you mean {meant}?" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "meant"),
    [("photo.jpg --layr conv1", "--layer"), ("models --jsn", "--json"), ("analyze pears", "'pairs'")],
)
def test_a_mistyped_option_and_a_mistyped_analysis(words: str, meant: str, call: Call) -> None:
    assert meant in refused(call, *words.split())


def test_a_picture_that_is_called_nearly_like_a_command(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there, or it has a picture's ending: it is a picture."""
    monkeypatch.chdir(tmp_path)
    Path("model").write_bytes(Path(SAMPLE).read_bytes())
    for name in ("model", "models.jpg"):
        assert "Missing option '--model'" in refused(call, name)
    # Nor is an option of the main job a command: --features comes near one.
    assert "Missing option '--model'" in refused(call, "--features", "sent.npy")


def test_what_a_call_lacks_is_told_with_the_command_that_lists_it(call: Call) -> None:
    assert "'reconstruct models' lists those" in refused(call, SAMPLE, "--layer", "conv1")
    assert "'reconstruct models MODEL' lists a model's layers" in refused(call, SAMPLE, "--model", "crelu_conv1_4")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("reconstruct mo", "models"),
        ("reconstruct modl", ""),
        ("reconstruct photo.jpg --mod", "--model"),
        ("reconstruct analyze p", "pairs"),
        ("reconstruct evaluate --eng", "--engine"),
    ],
)
def test_bash_completes(line: str, found: str, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the function that ``reconstruct --show-completion bash`` defines asks."""
    monkeypatch.setenv("_RECONSTRUCT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    status, out, err = call()
    assert (status, out.split(), err) == (0, found.split(), "")
