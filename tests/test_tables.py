"""Users' CSVs: what is accepted, and what is refused with the place where it stands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from stages.common.errors import UserError
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
