"""What all commands have in common, in this process: where the input comes from, and how a command ends."""

import io
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from click.testing import CliRunner

from p3d_regression.checks import reading
from p3d_regression.checks import run as checks_run
from p3d_regression.cli.main import main
from p3d_regression.cli.progress import progress_bar
from support.lab import prediction_config, training_config, write_config, write_volumes

MODEL = {"name": "UNet3D", "final_activation": "none"}


def interrupt_unnoticed() -> None:
    """SIGINT while a destructor runs: Python drops the exception."""
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


class TestInterrupt:
    def test_reading_ends_at_the_next_piece(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        with progress_bar() as progress:
            progress.start("labels", 10)
            progress.advance(5)
            interrupt_unnoticed()
            with pytest.raises(KeyboardInterrupt):
                progress.advance(5)
            with pytest.raises(KeyboardInterrupt):
                progress.start("raw", 10)
        assert signal.getsignal(signal.SIGINT) is before

    def test_the_result_so_far_is_shown_with_status_2(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_volumes(tmp_path)
        paths = [str(write_config(tmp_path / f"{i}.yml", training_config(tmp_path, MODEL))) for i in range(2)]

        def scan(*arguments: Any) -> None:
            interrupt_unnoticed()
            arguments[3](1)

        monkeypatch.setattr(reading, "scan", scan)
        result = CliRunner().invoke(main, ["check", "--json", *paths])
        assert result.exit_code == 2, result.output
        first, second = json.loads(result.stdout)
        assert first["interrupted"]
        assert second["failures"] == ["interrupted before this config"]

    def test_before_any_result_it_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks_run, "read", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        result = CliRunner().invoke(main, ["check", str(tmp_path / "train.yml")])
        assert result.exit_code == 2
        assert result.stderr == "interrupted before any result\n"


class TestConfigFromAPipe:
    @pytest.fixture
    def text(self, tmp_path: Path) -> str:
        """A prediction config with a key that comes twice."""
        text = yaml.safe_dump(prediction_config(tmp_path, MODEL))
        return text.replace("  num_workers: 0\n", "  num_workers: 0\n  num_workers: 0\n")

    def test_of_standard_input(self, text: str) -> None:
        result = CliRunner().invoke(main, ["check", "--no-data", "-", "--json"], input=text)
        assert result.exit_code == 1, result.output
        (report,) = json.loads(result.stdout)
        assert report["config"] == "-"
        assert [(found["key"], found["code"]) for found in report["findings"]] == [("loaders.num_workers", "P3D215")]
        shown = CliRunner().invoke(main, ["check", "--no-data", "-"], input=text).stdout
        assert shown.startswith("<stdin>\n")

    def test_with_options_that_override_it(self, text: str, tmp_path: Path) -> None:
        arguments = ["check", "--json", "--select", "P3D601", "-", "--model_path", str(tmp_path / "none.pytorch")]
        (report,) = json.loads(CliRunner().invoke(main, arguments, input=text).stdout)
        assert report["failures"] == []
        (found,) = report["findings"]
        assert "none.pytorch" in found["message"]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
    def test_of_a_process(self, text: str, tmp_path: Path) -> None:
        """As ``check <(command)`` of bash gives it: what is read once is gone."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)

        def serve() -> None:
            pipe.write_text(text)
            while True:
                pipe.write_text("")

        threading.Thread(target=serve, daemon=True).start()
        result = CliRunner().invoke(main, ["check", "--no-data", "--json", str(pipe)])
        (report,) = json.loads(result.stdout)
        assert report["config"] == str(pipe)
        assert [found["code"] for found in report["findings"]] == ["P3D215"]

    def test_without_a_config_in_it(self) -> None:
        result = CliRunner().invoke(main, ["check", "-"], input="")
        assert result.exit_code == 2
        assert "could not be checked" in result.stdout


def writing(descriptor: int, *, buffered: bool) -> io.TextIOWrapper:
    return io.TextIOWrapper(os.fdopen(descriptor, "wb", 8192 if buffered else 0), write_through=not buffered)


def ended(arguments: list[str], stdout: io.TextIOWrapper, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exit status of a command with this standard output."""
    monkeypatch.setattr(sys, "stderr", sys.stderr)  # click replaces both
    monkeypatch.setattr(sys, "stdout", stdout)
    with pytest.raises(SystemExit) as exit_:
        main(arguments, prog_name="p3d-regression")
    return exit_.value.code


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 1),
        (["rule"], 1),
        (["activations"], 1),
        (["activations", "--json"], 1),
        (["check", "none.yml"], 2),
        (["check", "--json", "none.yml"], 2),
    ],
)
class TestOutputThatCannotBeWritten:
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_on_a_full_device(
        self,
        arguments: list[str],
        status: int,
        buffered: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        stdout = writing(os.open("/dev/full", os.O_WRONLY), buffered=buffered)
        assert ended(arguments, stdout, monkeypatch) == status
        stdout.close()
        assert capsys.readouterr().err == "Error: cannot write to standard output: No space left on device\n"

    def test_on_a_closed_pipe(
        self,
        arguments: list[str],
        status: int,
        buffered: bool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        stdout = writing(writer, buffered=buffered)
        assert ended(arguments, stdout, monkeypatch) in (1, 2)
        # what the interpreter does at its end; click has replaced it
        sys.stdout.flush()
        with suppress(BrokenPipeError):
            stdout.close()
        assert capsys.readouterr().err == ""


def test_a_file_that_cannot_be_written_is_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise FileNotFoundError(2, "No such file", "rules.txt")

    monkeypatch.setattr("p3d_regression.checks.registry.rules", fail)
    result = CliRunner().invoke(main, ["rule"])
    assert isinstance(result.exception, FileNotFoundError)
