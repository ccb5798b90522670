"""The summary of a handoff ticket: contracts/handoff.md, list extras."""

import pytest

from service.handoff.views import summary


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        pytest.param("Login loops", "Login loops", id="one short line is its own summary"),
        pytest.param("Login loops\nSince nine.", "Login loops", id="the first line only"),
        pytest.param("Login loops\r\nSince nine.", "Login loops", id="lines of Windows"),
        pytest.param("\n\n  Login loops  \nSince nine.", "Login loops", id="blank space around the line is left out"),
        pytest.param(" \n\t ", "", id="nothing but blank space has an empty summary"),
        pytest.param("x" * 140, "x" * 140, id="140 characters are not too many"),
        pytest.param("x" * 141, "x" * 140, id="a word that is too long by itself is cut"),
        pytest.param("x" * 140 + " y", "x" * 140, id="a word that ends at 140 is whole"),
        pytest.param("x" * 139 + " y", "x" * 139, id="no blank is left at the end"),
        pytest.param("a " + "x" * 138, "a " + "x" * 138, id="two words of 140"),
        pytest.param("a " + "x" * 138 + " y", "a " + "x" * 138, id="the last of two words ends at 140"),
        pytest.param("a " + "x" * 139, "a", id="a word that passes 140 is left out"),
        pytest.param("a   " + "x" * 139, "a", id="and all the blanks before it"),
        pytest.param("word " * 28 + "word", ("word " * 28).strip(), id="whole words"),
        pytest.param("a\tb\xa0c", "a\tb\xa0c", id="other blanks are kept within a line"),
        pytest.param("\xa0\u2003Login loops \t\xa0\nSince nine.", "Login loops", id="and left out around it"),
        pytest.param("x" * 139 + "\tyy", "x" * 139, id="a tab ends a word"),
        pytest.param("x" * 139 + "\xa0yy", "x" * 139, id="so does a no-break space"),
        pytest.param("a\t" + "x" * 139, "a", id="a word after a tab that passes 140 is left out"),
        pytest.param("Login loops\rSince nine.", "Login loops", id="lines of old Macs"),
        pytest.param("Login loops\u2028Since nine.", "Login loops", id="a line separator"),
        pytest.param("Login loops \u2029\u2028 Since nine.", "Login loops", id="a paragraph separator"),
        pytest.param("x" * 200 + " y", "x" * 140, id="a first word that is too long is cut"),
        pytest.param("x" * 140 + "   ", "x" * 140, id="140 and blanks that do not count"),
        pytest.param("x" * 140 + "   \ny", "x" * 140, id="140 and blanks before the next line"),
        pytest.param("x" * 139 + "   y", "x" * 139, id="139 and blanks before a word"),
        pytest.param("x" * 140 + "\xa0y", "x" * 140, id="140 and a no-break space"),
        pytest.param("日" * 139 + " 本語", "日" * 139, id="characters count, not bytes"),
        pytest.param("🎫" * 141, "🎫" * 140, id="nor UTF-16 units"),
        pytest.param("x" * 20_000, "x" * 140, id="the longest description"),
    ],
)
def test_a_summary_is_the_first_line_in_whole_words(description: str, expected: str) -> None:
    assert summary(description) == expected
