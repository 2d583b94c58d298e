"""What the cells of a table say of an image's classes; where one is wrong, ValueError says what is."""

from collections.abc import Callable, Sequence

from resnetkit.data.labels import SEPARATOR

Read = Callable[[Sequence[str]], tuple[str, ...]]  # from an image's label cells, stripped, to its classes

FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}  # the last as pandas writes


def one_name(cells: Sequence[str]) -> tuple[str, ...]:
    """A cell with the class."""
    if not cells[0]:
        raise ValueError("no label")
    return (cells[0],)


def several_names(cells: Sequence[str]) -> tuple[str, ...]:
    """A cell with the names of the classes, a | between two; an empty one says none of them."""
    names = tuple(name.strip() for name in cells[0].split(SEPARATOR)) if cells[0] else ()
    if not all(names):
        raise ValueError(f"labels {cells[0]!r} lack a name beside a {SEPARATOR}")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"label {twice!r} stands there twice")
    return names


def flags(columns: Sequence[str]) -> Read:
    """A cell a class, 0 or 1; the columns are the classes."""

    def read(cells: Sequence[str]) -> tuple[str, ...]:
        for column, cell in zip(columns, cells):
            if cell.lower() not in FLAGS:
                raise ValueError(f"{column} {cell!r}; it must be 0 or 1")
        return tuple(column for column, cell in zip(columns, cells) if FLAGS[cell.lower()])

    return read
