from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from frossl.core.length import Length
from frossl.core.types import UserError

UNITS = ("ep", "it", "img", "view", "min", "%")


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("20ep", 20, "ep"),
        ("5000it", 5000, "it"),
        ("1e6img", 1e6, "img"),
        ("1e+6img", 1e6, "img"),
        ("2.5e3it", 2500, "it"),
        ("10min", 10, "min"),
        ("0.5min", 0.5, "min"),
        (".5ep", 0.5, "ep"),
        ("1e6view", 1e6, "view"),
        ("5%", 5, "%"),
        (" 20 EP ", 20, "ep"),
    ],
)
def test_parse_reads_number_and_unit(text, amount, unit):
    assert Length.parse(text) == Length(amount, unit)


@pytest.mark.parametrize(
    "text",
    ["", "20", "ep", "-5ep", "20 epochs", "20h", "1,000it", "5.ep", "ep20", "nanep", "infmin", "1e6 6img", "2x5it"],
)
def test_parse_refuses_with_the_text_and_the_units(text):
    with pytest.raises(UserError) as caught:
        Length.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    for sample in ("20ep", "5000it", "1e6img", "10min", "5%"):
        assert sample in message


def test_a_number_too_large_for_a_float_is_refused():
    with pytest.raises(UserError):
        Length.parse("1e400it").steps(batch=1, images=1)


@given(amount=st.integers(0, 10**7), unit=st.sampled_from(UNITS))
def test_text_of_a_length_reads_back_as_the_same_length(amount, unit):
    length = Length(float(amount), unit)
    assert Length.parse(str(length)) == length


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("1ep", 195),  # 50000 // 256: the incomplete last batch is dropped
        ("20ep", 3900),
        ("0.5ep", 98),
        ("7it", 7),
        ("2.5it", 3),
        ("256img", 1),
        ("257img", 2),
        ("0it", 0),
        ("10min", None),
    ],
)
def test_steps(text, steps):
    assert Length.parse(text).steps(batch=256, images=50_000) == steps


@given(batch=st.integers(1, 4096), steps=st.integers(0, 10**8))
@example(batch=99, steps=21_916_360)  # the smallest of many random cases where a product of floats is one off
def test_images_are_exactly_enough_whole_batches(batch, steps):
    """Any multiple of the batch is that many steps, and one image more is one step more."""
    assert Length(float(batch * steps), "img").steps(batch=batch, images=10**6) == steps
    assert Length(float(batch * steps + 1), "img").steps(batch=batch, images=10**6) == steps + 1


def test_steps_of_a_share_is_refused():
    with pytest.raises(UserError, match=r"5%.*share"):
        Length.parse("5%").steps(batch=1, images=1)


@given(batch=st.integers(1, 4096), steps=st.integers(0, 10**6), views=st.integers(1, 200))
def test_views_are_exactly_enough_images(batch, steps, views):
    length = Length(float(batch * steps * views), "view").as_images(views)
    assert length.steps(batch=batch, images=10**6) == steps


def test_only_views_become_images():
    assert Length.parse("1e6view").as_images(4) == Length.parse("250000img")
    assert Length.parse("20ep").as_images(4) == Length.parse("20ep")
    with pytest.raises(UserError, match="counted in views"):
        Length.parse("1e6view").steps(batch=1, images=1)


@pytest.mark.parametrize(
    ("part", "whole", "share"),
    [
        ("5%", "20ep", 0.05),
        ("5%", "10min", 0.05),
        ("100%", "10it", 1),
        ("10ep", "1000ep", 0.01),
        ("39it", "1ep", 0.2),
        ("5120img", "1ep", 20 / 195),
        ("1min", "10min", 0.1),
        ("0ep", "10ep", 0),
        ("20ep", "20ep", 1),
    ],
)
def test_share_of_a_run(part, whole, share):
    fraction = Length.parse(part).fraction_of(Length.parse(whole), batch=256, images=50_000)
    assert fraction == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(
    ("part", "whole", "says"),
    [
        ("21ep", "20ep", "21ep.*longer.*20ep"),
        ("101%", "20ep", "101% is longer"),
        ("11min", "10min", "11min is longer"),
        ("10ep", "10min", "10ep.*10min"),
        ("1min", "10ep", "1min.*10ep"),
    ],
)
def test_share_that_makes_no_sense_is_refused(part, whole, says):
    with pytest.raises(UserError, match=says):
        Length.parse(part).fraction_of(Length.parse(whole), batch=256, images=50_000)
