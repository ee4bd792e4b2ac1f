"""Users' CSVs: what is accepted, and what is refused with the place where it stands."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stages.common import tables
from stages.common.errors import UserError
from stages.common.files import write_csv
from stages.common.tables import Table, read_clusters, read_linear_set, read_numbers

Read = Callable[..., Table]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(content: str | bytes) -> Path:
    path = Path("own.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message(read: Read, content: str | bytes) -> str:
    with pytest.raises(UserError) as refusal:
        read(written(content))
    return str(refusal.value)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "start", "more"),
    [
        # the file
        ("", "is empty; expected a line of column names", ""),
        ("\n \n", "is empty", ""),
        (b"x,y\n1,2\n\xff,4\n", "expected text in UTF-8", ""),
        ("x,y\n1,2\n3,4\n".encode("utf-16"), "expected text in UTF-8", ""),
        ('x,y\n1,2\n3,"4\n', "line 3: expected comma-separated values", "unexpected end"),
        ('x,y\n1,2\n"3"4,5\n', "line 3: expected comma-separated values", ""),
        # the header
        ("x;y\n1;2\n3;4\n", "expected columns separated by commas, found the header 'x;y'", ""),
        ("x\ty\n1\t2\n3\t4\n", "expected columns separated by commas, found the header 'x\ty'", ""),
        ("x, x ,y\n1,2,3\n4,5,6\n", "column name 'x' stands 2 times", ""),
        ("x,,y\n1,2,3\n4,5,6\n", "column 2 has no name", ""),
        ("x,y,\n1,2,\n3,4,\n", "column 3 has no name", ""),
        ('"x\n1",y\n1,2\n3,4\n', "the name of column 1 holds an unprintable character", ""),
        # the table as a whole
        ("x,y;z\n1,2\n3,4\n", "no column 'y', found x, y;z; name the target 'y'", ""),
        ("x,Y\n1,2\n3,4\n", "no column 'y', found x, Y", "; names are case-sensitive"),
        ("y\n1\n2\n", "expected at least one feature beside 'y'", ""),
        ("x,y\n", "expected at least 2 rows below the header, found 0", ""),
        ("x,y\n1,2\n", "expected at least 2 rows below the header, found 1", ""),
        # a row; lines count from the header, blank ones as well
        ("x,y\n1,2\n3\n", "row 2 (line 3): expected 2 cells as in the header (x, y), found 1", "remove the row"),
        ("x,y\n1,2\n3,4,\n", "row 2 (line 3): expected 2 cells as in the header (x, y), found 3", ""),
        ("\ufeffx,y\r\n\r\n1,2\r\n3\r\n", "row 2 (line 4): expected 2 cells", ""),
        ("x,y\n\n1,2\n \n\r\n3,four\n", "row 2 (line 6), column 'y': expected a finite number, found 'four'", ""),
        # a cell
        ("x,y\n1,2\n3,4 5\n", "row 2 (line 3), column 'y': expected a finite number, found '4 5'", "correct or remove"),
        ("x,y\n1,2\n3, \n", "row 2 (line 3), column 'y': expected a finite number, found an empty cell", ""),
        ('x,y\n1,2\n"",4\n', "row 2 (line 3), column 'x': expected a finite number, found an empty cell", ""),
        ("x,y\n1,2\n,\n", "row 2 (line 3), column 'x': expected a finite number, found an empty cell", ""),
        ("x,y\nnan,2\n3,4\n", "row 1 (line 2), column 'x': expected a finite number, found 'nan'", ""),
        ("x,y\n1,2\n3,-Infinity\n", "row 2 (line 3), column 'y': expected a finite number, found '-Infinity'", ""),
        ("x,y\n1,2\n3,1e400\n", "row 2 (line 3), column 'y': expected a finite number, found '1e400'", ""),
        (
            "x,y\n1,-1e200\n3,4\n",
            "row 1 (line 2), column 'y': expected a finite number of size 1e+150 at most",
            "-1e200",
        ),
    ],
)
def test_a_bad_linear_set_is_refused_with_its_place(content: str | bytes, start: str, more: str) -> None:
    refusal = message(read_linear_set, content)
    assert refusal.startswith(f"own.csv: {start}")
    assert more in refusal


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("x,Label\n1,0\n2,1\n", "no column 'label', found x, Label; name the target 'label'; names are case-sensitive"),
        ("label\n0\n1\n", "expected at least one feature beside 'label'"),
        ("x,label\n1,0\n", "expected at least 2 rows below the header, found 1"),
        ("x,label\n1,3\n2,3\n", "column 'label' must hold exactly two classes, found 1: 3"),
        ("x,label\n1,0\n2,1\n3,2.5\n", "column 'label' must hold exactly two classes, found 3: 0, 1, 2.5"),
        (
            "x,label\n1,0\n1,1\n1,2\n1,3\n1,4\n1,5\n",
            "column 'label' must hold exactly two classes, found 6: 0, 1, 2, 3, 4, ...",
        ),
        ("x,label\n1,0\n2,yes\n", "row 2 (line 3), column 'label': expected a finite number, found 'yes'"),
    ],
)
def test_bad_clusters_are_refused_with_their_place(content: str, start: str) -> None:
    assert message(read_clusters, content).startswith(f"own.csv: {start}")


@pytest.mark.parametrize(("read", "target"), [(read_linear_set, "y"), (read_clusters, "label")])
def test_another_number_of_features_than_the_experiment_takes_is_refused(read: Read, target: str) -> None:
    path = written(f"a,b,{target}\n5,6,0\n7,8,1\n")
    assert read(path, features=2).features.shape == (2, 2)
    with pytest.raises(UserError, match=r"own.csv: expected 1 feature for this experiment, found 2 \(a, b\); remove"):
        read(path, features=1)
    with pytest.raises(UserError, match=r"own.csv: expected 3 features for this experiment, found 2 \(a, b\)"):
        read(path, features=3)


def test_a_missing_csv_is_named_with_the_command_that_makes_it() -> None:
    with pytest.raises(UserError, match=r"^data/line\.csv: not found; `dvc repro` makes it$"):
        read_linear_set(Path("data/line.csv"))


# --- what is accepted ------------------------------------------------------------------------------------------------

PLAIN = "x,y\n1,2.5\n-3e-2,4\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        ("\ufeff" + PLAIN).replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.rstrip("\n"),
        PLAIN + "\r\n \r\n",
        "\n" + PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("x,y", 'x, "y"'),
        PLAIN.replace("1,", '"1",'),
        PLAIN.replace(",", " , ").replace("\n", " \n "),
        PLAIN.replace("1,", "+1.0,").replace("-3e-2", "-0.03"),
    ],
)
def test_another_spelling_reads_as_the_plain_one(content: str) -> None:
    numbers = read_numbers(written(content))
    assert numbers.names == ["x", "y"]
    assert numbers.values.tolist() == [[1.0, 2.5], [-0.03, 4.0]]


def test_features_keep_their_order_and_their_names_in_utf8() -> None:
    table = read_linear_set(written('längd,y,"b,c",温度\n1,2,3,4\n5,6,7,8\n'))
    assert (table.feature_names, table.target_name, table.has_classes) == (["längd", "b,c", "温度"], "y", False)
    assert table.features.tolist() == [[1.0, 3.0, 4.0], [5.0, 7.0, 8.0]]
    assert table.target.tolist() == [2.0, 6.0]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 2), (-1, 1), (-7.5, 1e150)])
def test_the_smaller_label_is_class_0(low: float, high: float) -> None:
    table = read_clusters(written(f"x,label\n1,{high}\n2,{low}\n3,{high}\n"))
    assert table.target.tolist() == [1.0, 0.0, 1.0]
    assert table.has_classes


# --- at once and cell by cell ----------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers().map(str),
    st.from_regex(r"[+-]?[0-9]{0,30}\.?[0-9]{1,30}(e[+-]?[0-9]{1,3})?", fullmatch=True),  # long mantissas, huge, tiny
)
ODD = ["", " ", "nan", "-inf", "Infinity", "1e400", "-1e150", "1.0000000000000001e150", "1_0", "1__0", "0x10", "0x1p-3"]
ODD += [
    "１２",
    "٣.٥",
    "1٫5",
    "\u20031",
    "1\u00a0",
    "\x1c1",
    "1\x0b",
    "\t1 ",
    " 1",
    "1 ",
    "1 2",
    "1.",
    ".5",
    ".",
    "--1",
    "+ 1",
]
ODD += [
    "1e",
    "1E5",
    "1d5",
    "1f",
    "1j",
    "(1)",
    "True",
    "text",
    "温度",
    "#1",
    "a#b",
    "1;2",
    "'1'",
    "1\0",
    "\x85",
    "1\u20282",
]
ODD += [
    '"1"',
    ' "1"',
    '"1" ',
    '"1',
    '1"',
    '""1',
    '"a,b"',
    '"a\nb"',
    '"\n"',
    '"',
    "1,2",
    ",",
    "\ufeff1",
    "1" * 400,
    "0" * 131_073,
]
FEW_ODD = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.sampled_from(ODD), st.text(max_size=4))


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, list[str] | None]:
    """A CSV of a few rows, plain or odd in any way, and the columns to read of it."""
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    header = names if draw(st.booleans()) else [draw(st.sampled_from(["{}", " {}", '"{}"'])).format(n) for n in names]
    chosen = draw(st.one_of(st.none(), st.lists(st.sampled_from(names), min_size=1, unique=True)))
    cells = {
        name: FEW_ODD if draw(st.integers(0, 3)) == 0 else NUMBERS if name in (chosen or names) else st.text(max_size=4)
        for name in names
    }
    rows = [[draw(cells[name]) for name in names] for _ in range(draw(st.integers(0, 5)))]
    if rows and draw(st.integers(0, 5)) == 0:  # ragged
        draw(st.sampled_from(rows))[draw(st.integers(0, 1)) :] = draw(st.lists(NUMBERS, max_size=4))
    lines = [",".join(cells) for cells in [header, *rows]]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(["", " ", "\t ", "\x0c", "\u2003"])))
    end = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    text = end.join(lines) + draw(st.sampled_from(["", end, end, end * 2, " ", "\n\r"]))
    content = text.encode("utf-8", draw(st.sampled_from(["replace", "surrogatepass"])))
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + content, chosen


def outcome(path: Path, columns: Sequence[str] | None) -> object:
    """What is read, to the last bit, or the message."""
    try:
        numbers = read_numbers(path, columns)
    except UserError as error:
        return str(error)
    return numbers.names, numbers.values.dtype, numbers.values.shape, numbers.values.tobytes()


@pytest.mark.parametrize("number", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_file_read_at_once_gives_what_it_gives_cell_by_cell(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers to the last bit, or the same message; and plain files are read at once."""
    at_once = tables._plain_numbers
    read = {"at once": 0, "cell by cell": 0, "refused": 0}

    @settings(max_examples=number, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(files())
    @example((b"a,b\n1,2\n3,4,5\n", ["b"]))
    @example((b"a,b\n1,2,3\n4,5,6\n", None))
    @example((b"a,b\n" + b"x" * 131_073 + b",1\n", ["b"]))
    @example((b'a,b,c\n"x,y",1\n', ["c"]))
    @example((b'a,b\n"x,1\ny",2\n', ["b"]))
    @example((b"a,b\n" + b"x,1\n" * 5000 + b"\xff,2\n", ["b"]))  # beyond what is read for the header
    @example((b"a,b\n1,\x1c1\n", None))
    def compare(file: tuple[bytes, list[str] | None]) -> None:
        content, columns = file
        path = written(content)
        monkeypatch.setattr(tables, "_plain_numbers", lambda *_: None)
        careful = outcome(path, columns)
        monkeypatch.setattr(tables, "_plain_numbers", at_once)
        assert outcome(path, columns) == careful
        if isinstance(careful, str):
            read["refused"] += 1
        else:
            header_line, header = next(tables.read_rows(path))
            places = [header.index(name) for name in columns or header]
            is_plain = at_once(path, header_line, len(header), places) is not None
            read["at once" if is_plain else "cell by cell"] += 1

    compare()
    assert min(read.values()) > number / 10, read


def test_plain_files_are_not_looked_at_cell_by_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what stands in columns that nobody asked for; the time of cell by cell is ten times as long."""
    monkeypatch.delattr(tables, "_checked_numbers")
    path = written('\ufeff\n"a", b,c\r\n1,é,-2.5e-3\r\n\r\n 3 ,x y, 4\r\n  \r\n')
    assert read_numbers(path, ["c", "a"]).values.tolist() == [[-2.5e-3, 1.0], [4.0, 3.0]]
    rows = np.random.default_rng(0).normal(size=(1000, 3)) * 10.0 ** np.arange(-100, 150, 100)
    write_csv(dict(zip("abc", rows.T, strict=True)), path, digits=None)
    assert read_numbers(path).values.tobytes() == rows.tobytes()
