"""Versions: publishing, rolling back, and taking them up while requests run. Fake servables."""

import asyncio
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from serve_fakes import FakeServable, Recorder, columns_of

from tzrec import storage
from tzrec.errors import ConfigError, ServingError
from tzrec.serving.engine import Engine
from tzrec.serving.loading import load
from tzrec.serving.options import ServeOptions
from tzrec.serving.publish import publish, roll_back, versions
from tzrec.serving.versions import Pointer, Source, is_version_name


def load_factor(directory, *, version):
    """A "model" is a directory with the factor in a file."""
    text = (Path(directory) / "factor").read_text()
    if text == "broken":
        raise ServingError(f"{directory} does not score here as where it was exported")
    return FakeServable(version or Path(directory).name, factor=float(text))


def make_export(root, factor):
    path = root / f"export-{factor}"
    (path / "inner").mkdir(parents=True)
    (path / "factor").write_text(str(factor))
    (path / "inner" / "weights").write_bytes(b"\0" * 1000)
    return str(path)


def names(root):
    return [version.name for version in versions(str(root))]


def current(root):
    return Source(root).current().version


@pytest.fixture
def root(tmp_path):
    return tmp_path / "models"


def add(tmp_path, root, name, factor, **options):
    export = tmp_path / f"export-{factor}"
    source = str(export) if export.is_dir() else make_export(tmp_path, factor)
    return publish(source, str(root), name=name, load=load_factor, **options)


def test_publishing_makes_a_version_current(tmp_path, root):
    assert add(tmp_path, root, "a", 2) == "a"
    assert add(tmp_path, root, "b", 3) == "b"
    assert (root / "current").read_text() == "b\n"
    assert (root / "versions" / "a" / "factor").read_text() == "2"
    assert (root / "versions" / "b" / "inner" / "weights").read_bytes() == b"\0" * 1000
    pointer = Source(root).current()
    assert (pointer.version, pointer.directory) == ("b", str(root / "versions" / "b"))
    assert [(v.name, v.is_current) for v in versions(str(root))] == [("a", False), ("b", True)]
    assert all(v.published.endswith("+00:00") for v in versions(str(root)))


def test_a_name_of_its_own_is_the_time(tmp_path, root):
    first = add(tmp_path, root, None, 2)
    second = add(tmp_path, root, None, 3)
    assert first < second
    assert first.startswith(time.strftime("%Y", time.gmtime()))
    assert names(root) == [first, second]


def test_a_broken_export_changes_nothing(tmp_path, root):
    add(tmp_path, root, "a", 2)
    before = sorted(path for path in root.rglob("*") if path.name != ".lock")
    with pytest.raises(ServingError, match="does not score here"):
        add(tmp_path, root, "b", "broken")
    assert sorted(path for path in root.rglob("*") if path.name != ".lock") == before
    assert current(root) == "a"


def test_what_a_killed_publisher_left_is_cleared(tmp_path, root):
    add(tmp_path, root, "a", 2)
    (root / "versions" / ".partial-b").mkdir()
    assert names(root) == ["a"]
    add(tmp_path, root, "b", 3)
    assert sorted(os.listdir(root / "versions")) == ["a", "b"]


@pytest.mark.parametrize(
    ("keep", "left"), [(0, "abcde"), (1, "de"), (2, "de"), (3, "cde"), (9, "abcde")]
)
def test_only_the_newest_are_kept(tmp_path, root, keep, left):
    for name, factor in zip("abcde", range(5), strict=True):
        add(tmp_path, root, name, factor, keep=keep)
    assert names(root) == list(left)
    assert sorted(os.listdir(root / "versions")) == list(left)


def test_rolling_back_goes_one_further_each_time(tmp_path, root):
    for name, factor in zip("abc", range(3), strict=True):
        add(tmp_path, root, name, factor)
    assert roll_back(str(root)) == "b"
    assert current(root) == "b"
    assert roll_back(str(root)) == "a"
    with pytest.raises(ConfigError, match="no version before 'a'"):
        roll_back(str(root))
    assert current(root) == "a"
    assert roll_back(str(root), "c") == "c"
    with pytest.raises(ConfigError, match="no version 'bb'; did you mean 'b'"):
        roll_back(str(root), "bb")
    add(tmp_path, root, "d", 7)
    assert roll_back(str(root)) == "c"


def test_versions_that_were_copied_by_hand(tmp_path, root):
    add(tmp_path, root, "m", 2)
    os.rename(make_export(tmp_path, 9), root / "versions" / "z")
    assert [(v.name, v.published == "") for v in versions(str(root))] == [("z", True), ("m", False)]
    assert roll_back(str(root)) == "z"


def test_versions_may_be_links_and_other_files_are_none(tmp_path, root):
    add(tmp_path, root, "m", 2)
    outside = Path(make_export(tmp_path, 9))
    (root / "versions" / "link").symlink_to(outside)
    (root / "versions" / "README").write_text("what lies here")
    assert names(root) == ["link", "m"]
    add(tmp_path, root, "n", 3, keep=2)
    assert sorted(os.listdir(root / "versions")) == ["README", "m", "n"]
    assert (outside / "factor").is_file()
    (root / "versions" / ".partial-link").symlink_to(outside)  # of a killed publisher
    add(tmp_path, root, "o", 4, keep=2)
    assert sorted(os.listdir(root / "versions")) == ["README", "n", "o"]


def test_what_was_rolled_back_from_is_not_gone_back_to(tmp_path, root):
    for name, factor in zip("abc", range(3), strict=True):
        add(tmp_path, root, name, factor)
    roll_back(str(root))
    add(tmp_path, root, "d", 7)
    assert names(root) == ["c", "a", "b", "d"]
    assert roll_back(str(root)) == "b"
    roll_back(str(root), "a")
    add(tmp_path, root, "e", 8, keep=2)
    assert names(root) == ["a", "e"]  # the current one, and the one before it


def test_a_copy_of_a_remote_model_goes_with_it(tmp_path, monkeypatch):
    seen = []

    def read(directory, *, version):
        seen.append(Path(directory))
        return FakeServable(version, factor=float((seen[-1] / "factor").read_text()))

    monkeypatch.setattr("tzrec.serving.servable.load_servable", read)
    storage.upload_tree(make_export(tmp_path, 3), "memory://copied/a")
    copies = tmp_path / "copies"
    copies.mkdir()
    servable = load("memory://copied/a", copies=str(copies))
    assert (servable.version, servable.factor) == ("a", 3.0)
    assert seen[0].parent == copies
    assert (seen[0] / "inner" / "weights").is_file()
    del servable
    assert not list(copies.iterdir())
    storage.remove_tree("memory://copied")


@pytest.mark.parametrize("name", ["", "..", ".a", "a/b", "a b", "ä", "-x", "x" * 129, "a\n"])
def test_names_that_no_version_has(tmp_path, root, name):
    assert not is_version_name(name)
    if name:
        with pytest.raises(ConfigError, match="cannot be called"):
            add(tmp_path, root, name, 2)
        assert not root.exists()


def test_a_root_is_not_made_of_something_else(tmp_path, root):
    add(tmp_path, root, "a", 2)
    with pytest.raises(ConfigError, match="'a' already"):
        add(tmp_path, root, "a", 3)
    export = make_export(tmp_path, 5)
    with pytest.raises(ConfigError, match=r"no directory of versions .* factor, inner"):
        publish(make_export(tmp_path, 6), export, load=load_factor)
    with pytest.raises(ConfigError, match="lies in"):
        publish(export, f"{export}/models", load=load_factor)
    with pytest.raises(ServingError, match="is not a directory"):
        publish(str(tmp_path / "nothing"), str(root), load=load_factor)
    with pytest.raises(ServingError, match="has no versions"):
        roll_back(export)
    assert not os.path.exists(f"{export}/versions")


def test_publishers_at_the_same_time_take_turns(tmp_path, root):
    exports = [make_export(tmp_path, i) for i in range(6)]
    threads = [
        threading.Thread(
            target=publish, args=(export, str(root)), kwargs={"name": f"v{i}", "load": load_factor}
        )
        for i, export in enumerate(exports)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published = json.loads((root / "published.json").read_text())
    assert sorted(name for name, _ in published) == [f"v{i}" for i in range(6)]
    assert names(root) == [name for name, _ in published][-5:]
    assert current(root) == published[-1][0]


def test_a_root_in_an_object_store(tmp_path):
    root = "memory://serve-models"
    storage.remove_tree(root)

    def load_from_anywhere(directory, *, version):
        with storage.open_file(f"{directory}/factor") as stream:
            return FakeServable(version, factor=float(stream.read()))

    for name, factor in (("a", 2), ("b", 3), ("c", 4)):
        export = make_export(tmp_path, factor)
        publish(export, root, name=name, keep=2, load=load_from_anywhere)
    assert names(root) == ["b", "c"]
    pointer = Source(root).current()
    assert (pointer.version, pointer.directory) == ("c", f"{root}/versions/c")
    assert roll_back(root) == "b"
    engine = Engine(root, ServeOptions(reload_seconds=0.02), load=load_from_anywhere)
    engine.start()
    engine.wait(10)
    assert asyncio.run(engine.predict(columns_of(1.0), rows=1)).outputs["y"].tolist() == [3.0]
    roll_back(root, "c")
    wait_for(lambda: engine.state().version == "c")
    engine.close()
    storage.remove_tree(root)


def test_sources(tmp_path, root):
    export = make_export(tmp_path, 2)
    source = Source(export)
    assert not source.has_versions
    assert source.current().version == ""
    assert source.current().directory == export
    with pytest.raises(ServingError, match="is not a directory"):
        Source(tmp_path / "nothing")
    (root / "versions").mkdir(parents=True)
    with pytest.raises(ServingError, match="none of them is current"):
        Source(root)


@pytest.mark.parametrize("text", ["", "../../etc", "a/../b", "\xff\xfe", "a b"])
def test_a_pointer_names_a_version_and_nothing_else(tmp_path, root, text):
    add(tmp_path, root, "a", 2)
    (root / "current").write_bytes(text.encode("latin-1"))
    with pytest.raises(ServingError, match="not the name of a version"):
        Source(root).current()


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def serving(tmp_path, root):
    """An engine on a root with version ``a``, factor 2."""
    add(tmp_path, root, "a", 2)
    recorder = Recorder()
    loads = []

    def load(directory, *, version):
        loads.append(version)
        return load_factor(directory, version=version)

    engine = Engine(
        root, ServeOptions(reload_seconds=0.02, threads=2), load=load, observer=recorder
    )
    engine.start()
    engine.wait(10)
    engine.loads = loads
    yield engine
    engine.close()


def score(engine, value=1.0):
    scored = asyncio.run(engine.predict(columns_of(value), rows=1))
    return scored.version, scored.outputs["y"].tolist()


def test_a_new_version_is_taken_up(tmp_path, root, serving, caplog):
    assert score(serving) == ("a", [2.0])
    add(tmp_path, root, "b", 3)
    wait_for(lambda: serving.state().version == "b")
    assert score(serving) == ("b", [3.0])
    roll_back(str(root))
    wait_for(lambda: serving.state().version == "a")
    assert score(serving) == ("a", [2.0])
    assert serving.observer.reloads == [("a", True), ("b", True), ("a", True)]
    assert "version b answers from now on" in caplog.text


def test_a_version_that_fails_is_tried_once_and_the_old_one_stays(tmp_path, root, serving, caplog):
    os.rename(make_export(tmp_path, "broken"), root / "versions" / "b")
    roll_back(str(root), "b")
    wait_for(lambda: ("b", False) in serving.observer.reloads)
    time.sleep(0.2)
    assert serving.loads.count("b") == 1
    assert score(serving) == ("a", [2.0])
    assert serving.state().is_ready
    assert "version b cannot be loaded, a goes on answering" in caplog.text
    # Cured, and said again: it is tried again.
    (root / "versions" / "b" / "factor").write_text("5")
    roll_back(str(root), "b")
    wait_for(lambda: serving.state().version == "b")
    assert score(serving) == ("b", [5.0])


def test_a_version_of_another_storage_is_tried_again(tmp_path, monkeypatch, caplog):
    """Its storage was away for a moment; the pointer is not written a second time."""
    root = "memory://again"
    monkeypatch.setattr("tzrec.serving.slot._PAUSE_TIMES", 0.0)
    add(tmp_path, root, "a", 2)
    tries = []

    def load(directory, *, version):
        tries.append((version, time.monotonic()))
        if version == "b" and len(tries) < 5:
            raise ServingError(f"{directory} cannot be read: 503 slow down")
        with storage.open_file(f"{directory}/factor", "r") as file:
            return FakeServable(version, factor=float(file.read()))

    engine = Engine(root, ServeOptions(reload_seconds=0.02, threads=1), load=load)
    engine.start()
    try:
        engine.wait(10)
        add(tmp_path, root, "b", 3)
        wait_for(lambda: engine.state().version == "b")
        time.sleep(0.1)
    finally:
        engine.close()
        storage.remove_tree(root)
    assert [name for name, _ in tries] == ["a", "b", "b", "b", "b"]
    times = [when for _, when in tries[1:]]
    # Later and later: pauses of 20, 40 and 80 milliseconds.
    assert times[3] - times[2] > 0.08
    assert times[2] - times[1] > 0.04
    assert "a goes on answering, next try in" in caplog.text


@pytest.mark.parametrize(
    ("error", "tries"), [(OSError("the disk is away"), 3), (ServingError("broken"), 1)]
)
def test_what_may_pass_is_tried_again(tmp_path, root, monkeypatch, error, tries):
    monkeypatch.setattr("tzrec.serving.slot._PAUSE_TIMES", 0.0)
    add(tmp_path, root, "a", 2)
    seen = []

    def load(directory, *, version):
        if version == "b":
            seen.append(version)
            raise error
        return load_factor(directory, version=version)

    engine = Engine(root, ServeOptions(reload_seconds=0.01, threads=1), load=load)
    engine.start()
    try:
        engine.wait(10)
        add(tmp_path, root, "b", 3)
        wait_for(lambda: len(seen) >= tries)
        time.sleep(0.1)
        assert (len(seen) == 1) == (tries == 1)
        # Another version is taken up at once, and its own pauses begin anew.
        add(tmp_path, root, "c", 4)
        wait_for(lambda: engine.state().version == "c")
    finally:
        engine.close()


def test_pauses_have_an_end(tmp_path, root, serving):
    """They follow how long a try takes, up to ten minutes."""
    slot = serving._slot
    pointer = Pointer("b", "memory://x/versions/b")
    found = [slot._plan_again(pointer, ServingError("x"), seconds) for seconds in (0, 3, 0, 60)]
    assert found == [f", next try in {s} s" for s in (0, 30, 60, 600)]


def test_going_back_from_a_failed_version_loads_nothing(tmp_path, root, serving):
    export = make_export(tmp_path, "broken")
    os.rename(export, root / "versions" / "b")
    roll_back(str(root), "b")
    wait_for(lambda: ("b", False) in serving.observer.reloads)
    roll_back(str(root), "a")
    time.sleep(0.2)
    assert serving.loads == ["a", "b"]
    assert score(serving) == ("a", [2.0])


def test_a_pointer_that_cannot_be_read_is_told_once(root, serving, caplog):
    (root / "current").unlink()
    time.sleep(0.3)
    assert caplog.text.count("cannot look for a new version") == 1
    assert score(serving) == ("a", [2.0])
    (root / "current").write_text("../a\n")
    wait_for(lambda: "not the name of a version" in caplog.text)
    (root / "current").write_text("a\n")
    time.sleep(0.1)
    assert serving.loads == ["a"]


def test_a_version_whose_warm_up_fails_does_not_answer(tmp_path, root, serving):
    cold = FakeServable("cold", warm_up_error=ServingError("cold"))
    serving._slot._load = lambda directory, *, version: cold
    add(tmp_path, root, "b", 3)
    wait_for(lambda: ("b", False) in serving.observer.reloads)
    assert serving.state().version == "a"


def test_no_request_is_dropped_or_answered_by_two_versions(tmp_path, root, serving):
    """Clients ask without a pause, also in slices, while versions come and go."""
    factors = {"a": 2.0} | {f"v{i}": 3.0 + i for i in range(6)}
    done = threading.Event()
    seen = []

    async def client(rows):
        while not done.is_set():
            servable = serving.servable
            x = np.random.default_rng(rows).random(rows)
            scored = await serving.predict({"x": pa.array(x)}, rows=rows, servable=servable)
            assert scored.version == servable.version
            np.testing.assert_array_equal(scored.outputs["y"], x * factors[scored.version])
            seen.append(scored.version)

    async def clients():
        await asyncio.gather(*(client(rows) for rows in (1, 3, 50, 2500, 4000)))

    def publisher():
        try:
            for name, factor in list(factors.items())[1:]:
                add(tmp_path, root, name, int(factor), keep=2)
                wait_for(lambda name=name: serving.state().version == name)
                time.sleep(0.03)
        finally:
            done.set()

    thread = threading.Thread(target=publisher)
    thread.start()
    asyncio.run(clients())
    thread.join()
    assert set(seen) == set(factors)
    assert serving.observer.faults == []
    assert serving.observer.reloads == [(name, True) for name in factors]


def test_an_old_version_is_freed(tmp_path, root, serving):
    import gc
    import weakref

    old = weakref.ref(serving.servable)
    score(serving)
    add(tmp_path, root, "b", 3)
    wait_for(lambda: serving.state().version == "b")
    score(serving)
    wait_for(lambda: gc.collect() is not None and old() is None)
