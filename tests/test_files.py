"""Nothing that is there is replaced or removed unless it is ours and that was asked for."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from spectrum.errors import UsageError
from spectrum.pipeline import files, folders
from spectrum.pipeline.files import numbered, place, remove_dead, whole, write
from spectrum.pipeline.folders import MARKER, check_replaceable, write_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def text(content):
    return lambda path: path.write_text(content)


def filled(*names):
    def make(folder):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(name)

    return make


@pytest.fixture(params=["links", "no links"])
def anywhere(request, monkeypatch):
    """File systems with hard links and without."""
    if request.param == "no links":

        def link(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)


# -- files ---------------------------------------------------------------------------------------


def test_a_taken_name_gives_the_next_one(anywhere, tmp_path):
    assert [write(tmp_path / "a.png", text(str(k))).name for k in range(3)] == [
        "a.png", "a-2.png", "a-3.png",
    ]  # fmt: skip
    assert [(tmp_path / name).read_text() for name in ("a.png", "a-2.png", "a-3.png")] == list(
        "012"
    )
    (tmp_path / "b.png").symlink_to("nowhere")
    assert write(tmp_path / "b.png", text("x")).name == "b-2.png"
    assert names(tmp_path) == ["a-2.png", "a-3.png", "a.png", "b-2.png", "b.png"]


def test_what_is_created_meanwhile_stays(anywhere, tmp_path):
    def make(partial):
        partial.write_text("ours")
        (tmp_path / "a.png").write_text("theirs")

    assert write(tmp_path / "a.png", make).name == "a-2.png"
    assert (tmp_path / "a.png").read_text() == "theirs"


def test_replacing_takes_files_and_links_but_no_folder(anywhere, tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "a.png").symlink_to("kept")
    (tmp_path / "f.png").mkdir()
    assert write(tmp_path / "a.png", text("x"), replace=True) == tmp_path / "a.png"
    assert write(tmp_path / "a.png", text("y"), replace=True) == tmp_path / "a.png"
    assert (tmp_path / "kept").read_text() == "kept"
    assert write(tmp_path / "f.png", text("x"), replace=True) == tmp_path / "f-2.png"


def test_after_a_failure_there_is_nothing(tmp_path):
    def fail(partial):
        (partial / "x" if partial.is_dir() else partial).write_text("half")
        raise KeyboardInterrupt

    for act in (write, write_folder):
        with pytest.raises(KeyboardInterrupt):
            act(tmp_path / "a", fail)
    assert names(tmp_path) == []


def test_numbered_names_are_never_too_long():
    for path in (Path("a" * 251 + ".png"), Path("ü" * 125 + ".png")):
        found = numbered(path)
        assert next(found) == path
        assert len(os.fsencode(next(found).name)) in (254, 255)


def test_the_hidden_name_is_never_the_same_and_follows_no_link(tmp_path, monkeypatch):
    seen = set()
    for _ in range(2):
        write(tmp_path / "a", lambda path: seen.add(path.name))
    assert len(seen) == 2
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0" * 16)
    (tmp_path / "kept").write_text("kept")
    (tmp_path / f".spectrum-{'0' * 16}.partial").symlink_to("kept")
    with pytest.raises(FileExistsError):
        write(tmp_path / "b", text("x"))
    assert (tmp_path / "kept").read_text() == "kept"


def test_left_overs_of_the_dead_are_removed_and_of_the_living_are_not(tmp_path):
    process = os.fork()
    if process == 0:
        with whole(tmp_path / "dead"):
            os._exit(0)
    os.waitpid(process, 0)
    (tmp_path / ".spectrum-mine.partial").write_text("not ours")
    (left,) = (tmp_path / name for name in names(tmp_path) if len(name) > 25)
    remove_dead(tmp_path)
    assert left.exists()  # it could be one that is not locked yet
    os.utime(left, (0, 0))
    with whole(tmp_path / "a") as alive:
        os.utime(alive, (0, 0))
        remove_dead(tmp_path)
        assert alive.exists()
        assert not left.exists()
    assert names(tmp_path) == [".spectrum-mine.partial", "a"]


def test_signals_wait_while_a_file_gets_its_name(tmp_path, monkeypatch):
    linked = os.link

    def link(*args):
        linked(*args)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "partial").write_text("x")
    with pytest.raises(KeyboardInterrupt):
        place(tmp_path / "partial", tmp_path / "a")
    assert (tmp_path / "a").read_text() == "x"


# -- folders -------------------------------------------------------------------------------------


def test_a_folder_is_replaced_by_what_is_new(tmp_path):
    assert write_folder(tmp_path / "f", filled("1", "in/2")).name == "f"
    assert write_folder(tmp_path / "f", filled("3")).name == "f-2"
    assert write_folder(tmp_path / "f", filled("4"), replace=True).name == "f"
    assert names(tmp_path) == ["f", "f-2"]
    assert names(tmp_path / "f") == [MARKER, "4"]


@pytest.mark.parametrize("theirs", ["2023.png", "in/x", "in/empty/"])
def test_a_folder_with_anything_of_others_stays(tmp_path, theirs):
    write_folder(tmp_path / "f", filled("0000.png", "in/2"))
    path = tmp_path / "f" / theirs
    path.mkdir() if theirs.endswith("/") else path.write_text("theirs")
    with pytest.raises(UsageError, match=theirs.rstrip("/")):
        check_replaceable(tmp_path / "f")
    assert write_folder(tmp_path / "f", filled("1"), replace=True).name == "f-2"
    assert (tmp_path / "f/in/2").exists()
    assert path.exists()


def test_only_a_marker_makes_a_folder_ours(tmp_path):
    (tmp_path / "f").mkdir()
    write_folder(tmp_path / "f", filled("1"), replace=True)  # an empty one loses nothing
    (tmp_path / "g").mkdir()
    for content in ("", "[]", '{"files": "0000.png"}', '{"files": ["../kept"]}', "[" * 9999):
        (tmp_path / "g/0000.png").write_text("theirs")
        (tmp_path / "kept").write_text("kept")
        (tmp_path / "g" / MARKER).write_text(content)
        with pytest.raises(UsageError, match="not replaced"):
            check_replaceable(tmp_path / "g")
        write_folder(tmp_path / "g", filled("1"), replace=True)
        assert (tmp_path / "g/0000.png").read_text() == "theirs"
        assert (tmp_path / "kept").read_text() == "kept"


def test_a_name_that_is_taken_meanwhile_by_anything(tmp_path):
    takes = [
        lambda path: path.write_text("theirs"),
        lambda path: path.symlink_to("nowhere"),
        lambda path: filled("x")(path),
    ]
    for number, take in enumerate(takes):
        path = tmp_path / str(number)

        def make(partial, path=path, take=take):
            filled("1")(partial)
            if take is takes[2]:
                path.mkdir()
            take(path)

        assert write_folder(path, make, replace=True).name == f"{number}-2"
        assert os.path.lexists(path)


def test_the_link_to_a_folder_stays_and_the_folder_is_replaced(tmp_path):
    write_folder(tmp_path / "f", filled("1"))
    (tmp_path / "link").symlink_to("f")
    assert write_folder(tmp_path / "link", filled("2"), replace=True) == tmp_path / "f"
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "link") == [MARKER, "2"]


@pytest.mark.parametrize("dies_at", [1, 2, 3, "filling", "removing"])
def test_a_death_while_replacing_leaves_one_whole(tmp_path, monkeypatch, dies_at):
    write_folder(tmp_path / "f", filled("1"))
    process = os.fork()
    if process == 0:
        renamed = [0]

        def rename(old, new, real=os.rename):
            renamed[0] += 1
            if renamed[0] == dies_at:
                os._exit(1)
            real(old, new)

        def make(partial):
            filled("2")(partial)
            if dies_at == "filling":
                os._exit(1)

        os.rename = rename
        if dies_at == "removing":
            folders._remove_ours = lambda *_: os._exit(1)
        write_folder(tmp_path / "f", make, replace=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == (0 if dies_at == 3 else 1)
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    write_folder(tmp_path / "g", filled("3"))  # the next run there
    assert names(tmp_path) == ["f", "g"]
    assert names(tmp_path / "f") == [MARKER, "1" if dies_at in (1, "filling") else "2"]


def test_a_swap_that_fails_half_way_is_undone(tmp_path, monkeypatch):
    write_folder(tmp_path / "f", filled("1"))
    real = os.rename

    def rename(old, new):
        if str(old).endswith(".partial"):
            raise OSError(errno.EACCES, "Permission denied")
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(PermissionError):
        write_folder(tmp_path / "f", filled("2"), replace=True)
    assert names(tmp_path) == ["f"]
    assert json.loads((tmp_path / "f" / MARKER).read_text())["files"] == ["1"]
