"""The command line: flags reach the settings, mistakes give exit code 2 and a reason."""

import pytest
from click.testing import CliRunner

from server import VERSION
from server.cli import main


def run(*arguments):
    return CliRunner().invoke(main, list(arguments))


def test_version():
    assert run("version").output == run("--version").output
    assert run("version").output.startswith(f"rewinddb {VERSION} ")


def test_help_names_every_verb():
    output = run("--help").output
    for verb in ("serve", "log", "dump", "restore", "export", "import", "index-rebuild", "version"):
        assert f"  {verb} " in output


def test_the_settings_that_the_project_ships_are_fine(request):
    path = request.config.rootpath / "conf" / "single.yaml"
    result = run("serve", "--config", str(path), "--check-config")
    assert (result.exit_code, result.output) == (0, f"{path}: fine.\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--driver-port", "70000"], "driver.port: found 70000; allowed: a whole number from 0 to 65535"),
        (["--durability", "none"], "writes.durability: found the text 'none'; allowed: hard or soft"),
        (["--log-level", "loud"], "logging.level: found the text 'loud'"),
        (["--data-dir", ""], "server.data_dir: found the text ''"),
        (["--cache-bytes", "much"], "storage.cache_bytes: found the text 'much'; allowed: a whole number from 8388608"),
        (["--cache-bytes", "-5"], "storage.cache_bytes: found -5; allowed: a whole number from 8388608"),
        (["--driver-port", "many"], "'many' is not a valid integer"),
        (["--config", "absent.yaml"], "Cannot read the settings file absent.yaml"),
        (["--colour"], "No such option"),
    ],
)
def test_a_wrong_flag_gives_exit_code_2_and_a_reason(flags, said):
    result = run("serve", *flags, "--check-config")
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize("verb", ["show", "verify"])
def test_the_log_of_a_folder_that_is_not_there(verb, tmp_path):
    result = run("log", verb, "--data-dir", str(tmp_path / "absent"))
    assert result.exit_code == 2
    assert "does not exist" in result.output
