"""What the installation is said to be made of."""

from __future__ import annotations

import pytest

from binarize.commands import doctor


def finding(topic: str) -> doctor.Finding:
    [found] = [item for item in doctor.examine() if item.topic == topic]
    return found


def test_everything_needed_is_found_here() -> None:
    assert not [item for item in doctor.examine() if item.topic in doctor.NEEDED and item.state != "ok"]


def test_whatever_is_not_ok_comes_with_a_remedy() -> None:
    assert all((item.state == "ok") == (item.remedy == "") for item in doctor.examine())


def test_an_extra_that_lacks_a_part_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "train", ("pip", "no-such-distribution>=2"))
    found = finding("extra train")
    assert found.state == "missing"
    assert found.found == "without no-such-distribution"
    assert found.remedy == "pip install pip 'no-such-distribution>=2'"


def test_a_known_bad_release_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    version = doctor._version("numpy")
    assert version is not None
    monkeypatch.setattr(doctor, "BAD_RELEASES", {("numpy", version): "remove it", ("numpy", "0"): "never"})
    assert [(item.state, item.remedy) for item in doctor._bad_releases()] == [("bad", "remove it")]


def test_a_kernel_that_this_machine_lacks_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    from binarize.kernels import variants

    if not variants.variants():
        pytest.skip("the native kernels are not built")
    monkeypatch.setenv("BINARIZE_KERNELS", "of-another-planet")
    variants._default.cache_clear()
    try:
        assert finding("kernels").state == "bad"
    finally:
        variants._default.cache_clear()
