import pytest

from featstore.encoders.build import build
from featstore.errors import EncoderError
from featstore.pipeline.compiling import choose_compiling
from featstore.pipeline.forward import Forward


@pytest.fixture(scope="module")
def forward():
    return Forward(build("timm:test_resnet", random_weights=0), batch_size=4)


def test_an_encoder_is_compiled_where_that_saves_more_than_it_costs(forward):
    for n_patches, compiled in ((100, False), (10_000_000, True)):
        choice = choose_compiling("auto", forward, n_patches)
        assert choice.compiled == compiled
        assert "compiling would save" in choice.reason
        assert "and cost" in choice.reason


def test_devices_that_share_the_work_each_have_to_repay_it(forward):
    takes = choose_compiling("auto", forward, 1_000_000).reason.split(",")[0]
    assert takes.endswith((" min", " h", " s"))
    assert not choose_compiling("auto", forward, 10_000_000, n_devices=1_000_000).compiled


def test_compiling_asked_for_is_done_or_refused(forward, monkeypatch):
    assert choose_compiling("on", forward, 1).compiled
    assert not choose_compiling("off", forward, 10**9).compiled
    monkeypatch.setenv("PATH", "")
    assert choose_compiling("auto", forward, 10**9).reason == "there is no C++ compiler"
    with pytest.raises(EncoderError, match=r"--compile on needs a C\+\+ compiler; install one"):
        choose_compiling("on", forward, 1)
