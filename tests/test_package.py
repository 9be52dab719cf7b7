import pytest

import headstart
from headstart.errors import HeadstartError, counted, listed


def test_the_public_names_are_there():
    assert set(headstart.__all__) == {
        "Classifier",
        "HeadstartError",
        "PhotoError",
        "PhotoReport",
        "Recipe",
        "Run",
        "__version__",
        "add",
        "check",
        "compare",
        "load",
        "plot_history",
        "show_samples",
        "show_views",
        "train",
    }
    assert all(getattr(headstart, name) is not None for name in headstart.__all__)
    assert dir(headstart) == headstart.__all__ or set(headstart.__all__) <= set(dir(headstart))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = headstart.nothing


def test_errors_are_a_problem_and_a_fix():
    error = HeadstartError("the problem.", "The fix.")
    assert (str(error), error.problem, error.fix) == ("the problem.\nThe fix.", "the problem.", "The fix.")
    assert str(HeadstartError("alone.")) == "alone."


def test_lists_and_counts_read_well():
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefg"), 3) == "a, b, c and 4 more"
    assert [counted(1, "photo"), counted(0, "photo"), counted(1200, "class")] == [
        "1 photo",
        "0 photos",
        "1,200 classes",
    ]
