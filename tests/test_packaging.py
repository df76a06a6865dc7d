"""What setup.cfg says the distribution holds, against what there is."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from binarize.commands.doctor import EXTRAS, NEEDED

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def setup() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_packages_are_the_folders_that_hold_python_and_the_rules(setup: ConfigParser) -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "binarize").rglob("*.py")}
    assert set(lines(setup["options"]["packages"])) == {
        "binarize.rule_sets",
        *(".".join(folder.parts) for folder in folders),
    }


def test_rule_files_are_package_data(setup: ConfigParser) -> None:
    assert setup["options"]["package_dir"].strip() == "binarize.rule_sets = rules"
    assert "*.yaml" in setup["options.package_data"]["binarize.rule_sets"]


def test_every_file_beside_the_code_is_package_data(setup: ConfigParser) -> None:
    beside = [
        path.relative_to(ROOT)
        for path in (ROOT / "binarize").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".c", ".h", ".so")
    ]
    patterns = setup["options.package_data"]
    missing = [
        str(path)
        for path in beside
        if not any(path.match(glob.strip()) for glob in patterns[".".join(path.parent.parts)].split(","))
    ]
    assert beside
    assert not missing


def test_the_command_is_the_app(setup: ConfigParser) -> None:
    assert lines(setup["options.entry_points"]["console_scripts"]) == ["binarize = binarize.cli:main"]


def test_doctor_knows_the_requirements_and_extras(setup: ConfigParser) -> None:
    needed = [line.partition(">")[0] for line in lines(setup["options"]["install_requires"])]
    assert list(NEEDED) == needed
    for extra, requirements in EXTRAS.items():
        assert list(requirements) == lines(setup["options.extras_require"][extra])


def test_lightning_is_never_the_distribution_that_carried_malware(setup: ConfigParser) -> None:
    extras = setup["options.extras_require"]
    assert not [
        extra for extra in extras if "lightning" in [line.split(">")[0] for line in lines(extras[extra])]
    ]
