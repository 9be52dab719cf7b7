"""The table of what was found."""

from headstart.photos.findings import KINDS, SEVERITIES, Finding, finding_table, left_out


def test_the_most_important_comes_first_then_by_kind_and_name():
    table = finding_table(
        [
            Finding("b/10.jpg", "blurry", "x"),
            Finding("b/2.jpg", "blurry", "x"),
            Finding("c", "shortcut", "x", "severe"),
            Finding("b", "shortcut", "x"),
            Finding("a.jpg", "odd mode", "CMYK"),
            Finding("z.jpg", "leak", "x"),
            Finding("z.jpg", "label conflict", "x"),
        ]
    )
    assert table.columns.tolist() == ["path", "problem", "severity", "detail", "suggestion"]
    assert table[["path", "problem", "severity"]].to_numpy().tolist() == [
        ["z.jpg", "label conflict", "severe"],
        ["z.jpg", "leak", "severe"],
        ["c", "shortcut", "severe"],
        ["b", "shortcut", "warning"],
        ["b/2.jpg", "blurry", "warning"],
        ["b/10.jpg", "blurry", "warning"],
        ["a.jpg", "odd mode", "note"],
    ]
    assert table["suggestion"].tolist() == [KINDS[problem].suggestion for problem in table["problem"]]


def test_nothing_found_is_a_table_too():
    table = finding_table([])
    assert len(table) == 0 and len(table.columns) == 5 and left_out(table) == set()


def test_every_kind_has_a_severity_and_a_suggestion():
    assert all(kind.severity in SEVERITIES and kind.suggestion.endswith(".") for kind in KINDS.values())


def test_what_a_clean_copy_leaves_out():
    assert [name for name, kind in KINDS.items() if kind.left_out] == [
        "label conflict",
        "leak",
        "decompression bomb",
        "truncated",
        "damaged",
        "not an image",
        "empty file",
        "unreadable",
        "exact duplicate",
    ]
    table = finding_table([Finding("a", "leak", ""), Finding("b", "near duplicate", ""), Finding("c", "damaged", "")])
    assert left_out(table) == {"a", "c"}
