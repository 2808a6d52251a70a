"""Runs in an object store: a folder as a store, and an S3 server in this process."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import XaiError
from xaicli.store.objects import Entry, Store, local_files, mirror_folder, without_credentials
from xaicli.store.sync import Uploader, mirror, pull, push

pytest.importorskip("obstore", reason="the s3 extra is not installed")


def contents(root: Path) -> dict[str, bytes]:
    return {entry.key: (root / entry.key).read_bytes() for entry in local_files(root)}


@pytest.fixture
def folder_store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/bucket/exp1"


@pytest.fixture
def s3_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="bucket")
    yield f"s3://bucket/{tmp_path.name}"  # a bucket outlives its server within a process
    server.stop()


def test_a_run_at_an_address_is_called_by_it(
    folder_store: str, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mirror is of this machine alone: whoever follows a page's command has the address."""
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    push(sample_run, Store(folder_store))
    run = xaicli.open_run(folder_store)
    assert repr(run) == f"open_run({folder_store!r})"
    for result in (run.samples(max=1, min=0), run.labels(), run.info(), run.scalars(), run.confusion()):
        assert result.answer.run == folder_store
        assert str(tmp_path / "home") not in result.markdown() + result.to_json()
    assert f"command: `xai samples {folder_store} --metric loss" in run.samples(max=1, min=0).markdown()
    for compared in (xaicli.compare(sample_run, run), xaicli.compare([sample_run, folder_store])):
        assert compared.answer.run == f"{sample_run} {folder_store}"
        assert compared.data["change"].to_list() == [0.0] * compared.data.height
    with pytest.raises(XaiError, match=rf"no metric 'lossy' in {folder_store}"):
        run.samples(metric="lossy")
    with pytest.raises(XaiError, match=rf"there is no run at {folder_store}-gone"):
        xaicli.open_run(f"{folder_store}-gone")


def test_a_run_that_is_reopened_at_an_address_goes_on_there_unless_another_machine_did(
    folder_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def log(run: xaicli.Run, *ids: int) -> None:
        run.log_samples(sample_id=list(ids), loss=[0.5] * len(ids), mode="eval", epoch=1, step=1)

    def at(home: str) -> list[tuple[int, int]]:
        monkeypatch.setenv("XAI_HOME", str(tmp_path / home))
        found = xaicli.open_run(folder_store).scan(mode="eval").collect()
        return sorted(found.select("attempt", "sample_id").rows())

    monkeypatch.setenv("XAI_HOME", str(tmp_path / "here"))
    run = xaicli.Run(folder_store)
    log(run, 1, 2)
    run.close()
    assert at("reader-1") == [(0, 1), (0, 2)]
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "here"))
    assert run.reopen()
    log(run, 3)
    run.close()
    assert at("reader-2") == [(0, 1), (0, 2), (0, 3)]
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "there"))
    with xaicli.Run(folder_store) as other:
        log(other, 4)
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "here"))
    assert not run.reopen()
    assert at("reader-3") == [(0, 1), (0, 2), (0, 3), (1, 4)]


def test_what_is_collected_at_an_address_goes_there(
    folder_store: str, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(sample_run, Store(folder_store))
    for number in (1, 2):  # of machines, each with a mirror of its own
        monkeypatch.setenv("XAI_HOME", str(tmp_path / f"home-{number}"))
        assert main(["collect", folder_store, "--model", "ckpt.pt", "--collectors", "classification"]) == 0
        counted = xaicli.open_run(folder_store).query("SELECT count(*) AS n FROM metrics")
        assert counted.data["n"].to_list() == [number * 360]
        assert counted.answer.counts.damaged == ()


def test_an_address_is_named_without_its_credentials() -> None:
    assert without_credentials("s3://bucket/a b/exp1") == "s3://bucket/a b/exp1"
    assert without_credentials("https://ann:secret@host:9000/b/exp1?sig=abc#x") == "https://host:9000/b/exp1"
    assert without_credentials("file:///srv/runs/exp1") == "file:///srv/runs/exp1"


@pytest.mark.parametrize("kind", ["folder_store", "s3_store"])
def test_what_is_pushed_is_pulled_byte_for_byte(
    kind: str, sample_run: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = Store(request.getfixturevalue(kind))
    pushed = push(sample_run, store)
    again = push(sample_run, store)
    pulled = pull(store, tmp_path / "copy")
    assert set(pushed.sent) == set(pulled.sent) == set(contents(sample_run))
    assert again.sent == ()
    assert again.present == len(pushed.sent)
    assert contents(tmp_path / "copy") == contents(sample_run)


@pytest.mark.parametrize("kind", ["folder_store", "s3_store"])
def test_an_immutable_file_is_never_replaced(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = Store(request.getfixturevalue(kind))
    (tmp_path / "a.parquet").write_bytes(b"first")
    assert store.put(tmp_path, Entry("a.parquet", 5))
    assert not store.put(tmp_path, Entry("a.parquet", 5))
    (tmp_path / "a.parquet").write_bytes(b"another run")
    with pytest.raises(XaiError, match="exists with other contents"):
        store.put(tmp_path, Entry("a.parquet", 11))
    store.fetch(Entry("a.parquet", 5), tmp_path / "back")
    assert (tmp_path / "back" / "a.parquet").read_bytes() == b"first"


def test_a_changed_manifest_travels_again(sample_run: Path, folder_store: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(sample_run, run)
    store = Store(folder_store)
    push(run, store)
    manifest = json.loads((run / "xai.json").read_text())
    same_size = (run / "xai.json").read_text().replace(manifest["created_at"], manifest["created_at"][::-1])
    (run / "xai.json").write_text(same_size)
    assert push(run, store).sent == ("xai.json",)


def test_live_segments_caches_reports_and_temporary_files_stay_here(tmp_path: Path) -> None:
    for name in ("wal/segment", "cache/x", "reports/a.html", "data/.part.tmp", "attempts/.lock", "xai.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert [entry.key for entry in local_files(tmp_path)] == ["xai.json"]


def test_a_key_that_would_leave_the_run_is_refused(folder_store: str, tmp_path: Path) -> None:
    with pytest.raises(XaiError, match="leave the run directory"):
        Store(folder_store).fetch(Entry("../../evil.parquet", 1), tmp_path / "copy")
    assert not (tmp_path.parent / "evil.parquet").exists()
    (tmp_path / "mine.parquet").write_text("mine")
    notes = tmp_path / "mirror" / "cache" / "address.json"
    notes.parent.mkdir(parents=True)
    notes.write_text('{"../mine.parquet": "x"}')
    mirror(Store(folder_store), tmp_path / "mirror")
    assert (tmp_path / "mine.parquet").read_text() == "mine"


def test_the_uploader_sends_everything_and_the_next_attempt_continues(
    folder_store: str, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    uploader = Uploader(folder_store, interval=0.05)
    uploader.start()
    shutil.copytree(sample_run, uploader.root, dirs_exist_ok=True)
    assert uploader.close() == []
    assert contents(tmp_path / "bucket" / "exp1") == contents(sample_run)
    shutil.rmtree(tmp_path / "home")
    following = Uploader(folder_store, interval=0.05)
    following.start()
    assert (following.root / "xai.json").read_bytes() == (sample_run / "xai.json").read_bytes()
    assert following.close() == []


def test_a_store_out_of_reach_costs_a_warning_and_nothing_else(
    sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    uploader = Uploader("s3://bucket/exp1", interval=0.05)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        uploader.start()
        shutil.copytree(sample_run, uploader.root, dirs_exist_ok=True)
        left = uploader.close(timeout=1.0)
    assert set(left) == set(contents(sample_run))
    assert f"xai sync {mirror_folder('s3://bucket/exp1')} s3://bucket/exp1" in str(said[-1].message)
    assert "secret" not in "".join(str(warning.message) for warning in said)


def test_sync_from_the_command_line(xai, sample_run: Path, folder_store: str, tmp_path: Path) -> None:
    status, out, err = xai("sync", sample_run, folder_store, "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["command"] == "sync"
    assert answer["counts"]["rows"] == len(contents(sample_run)) == len(answer["rows"])
    status, out, err = xai("sync", folder_store, tmp_path / "copy", "-q")
    assert status == 0, err
    assert set(out.split()) == {str(tmp_path / "copy" / name) for name in contents(sample_run)}


@pytest.mark.parametrize("pair", [("a", "b"), ("s3://a/b", "s3://c/d")])
def test_sync_wants_one_folder_and_one_address(xai, pair: tuple[str, str]) -> None:
    status, _, err = xai("sync", *pair)
    assert status == 2
    assert "hint: push: xai sync runs/exp1 s3://bucket/exp1" in err


def test_a_run_in_a_store_is_read_in_place(
    xai, sample_run: Path, folder_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    push(sample_run, Store(folder_store))
    here = json.loads(xai("samples", sample_run, "--json")[1])
    status, out, err = xai("samples", folder_store, "--json")
    assert status == 0, err
    assert json.loads(out)["rows"] == here["rows"]
    monkeypatch.setenv("XAI_RUN", folder_store)
    assert json.loads(xai("samples", "--json")[1])["rows"] == here["rows"]


def test_an_address_without_a_run(xai, folder_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    status, _, err = xai("info", folder_store)
    assert status == 1
    assert err.startswith("error: ")


@pytest.mark.parametrize("kind", ["folder_store", "s3_store"])
def test_a_run_recorded_to_an_address_is_read_from_there(
    kind: str, xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(kind)
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "training"))
    with xaicli.Run(address) as run:
        run.log_samples(sample_id=[1, 2, 3], loss=[0.5, 2.0, 1.0], mode="eval", epoch=1, step=1)
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "elsewhere"))
    status, out, err = xai("samples", address, "--max", 2, "--min", 0, "--json")
    assert status == 0, err
    assert [(row["sample_id"], row["score"]) for row in json.loads(out)["rows"]] == [(2, 2.0), (3, 1.0)]


def test_several_runs_are_compared_where_they_lie(
    xai, s3_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run in a store beside one here: `compare` and `scalars` take both, in the order they are named."""
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "training"))
    for number, place in enumerate((s3_store, tmp_path / "here")):
        with xaicli.Run(place) as run:
            loss = [0.5 + number, 2.0, 4.0 - number]
            run.log_samples(sample_id=[1, 2, 3], label=[0, 1, 1], loss=loss, mode="eval", epoch=1, step=1)
            run.log({"step": 1, "lr": 0.25 + number})
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "elsewhere"))
    status, out, err = xai("compare", s3_store, tmp_path / "here", "--json")
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert [row["values"] for row in rows if row["kind"] == "label"] == [[0.5, 1.5], [3.0, 2.5]]
    assert {row["sample_id"]: row["change"] for row in rows if row["kind"] == "sample"} == {1: 1.0, 3: -1.0}
    status, out, err = xai("scalars", tmp_path / "here", s3_store, "--json")
    assert status == 0, err
    assert [row["value"] for row in json.loads(out)["rows"]] == [1.25, 0.25]


def test_what_was_refused_is_tried_again_at_exit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    uploader = Uploader(f"file://{tmp_path}/bucket", interval=30)
    uploader.start()
    (uploader.root / "xai.json").write_text("{}")
    refusals = iter([XaiError("not now")] * 3)

    def put(root: Path, entry: Entry, real=uploader._store.put) -> bool:
        if (refused := next(refusals, None)) is not None:
            raise refused
        return real(root, entry)

    monkeypatch.setattr(uploader._store, "put", put)
    assert uploader.close() == []
    assert (tmp_path / "bucket" / "xai.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("text", "is_odd"), [("abc", True), ("60s", True), ("-1", True), ("inf", True), ("0.5", False)]
)
def test_a_wait_that_is_no_number_is_told_and_what_is_left_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_odd: bool
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("xaicli.store.sync._WAIT_AT_EXIT", 0.25)
    monkeypatch.setenv("XAI_UPLOAD_WAIT", text)
    uploader = Uploader(f"file://{tmp_path}/bucket", interval=30)
    uploader.start()
    (uploader.root / "xai.json").write_text("{}")

    def put(*_: object) -> bool:
        raise XaiError("the store is dead")

    monkeypatch.setattr(uploader._store, "put", put)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert uploader.close() == ["xai.json"]
    told = [str(warning.message) for warning in said]
    assert told[:-1] == ([f"XAI_UPLOAD_WAIT={text!r} is no number of seconds such as 60: 0.25 is taken"] * is_odd)
    assert "1 files are not yet in" in told[-1]
    assert "the store is dead" in told[-1]


def recorded(place: Path | str, epoch: int, loss: float, **options: Any) -> None:
    """One start of a training: three samples of one loss in an epoch, and that as a scalar."""
    with xaicli.Run(place, **options) as run:
        run.log_samples(sample_id=[1, 2, 3], label=[0, 1, 1], loss=[loss] * 3, mode="eval", epoch=epoch, step=epoch)
        run.log({"lr": loss, "step": epoch})


def taken_out(address: str, *keys: str) -> None:
    """Delete files at an address behind the back of every mirror; all of them when none is named."""
    store = Store(address)
    for key in keys or tuple(store.entries()):
        store._obstore.delete(store._store, key)


def answers(address: str) -> tuple[list[Any], list[Any]]:
    """The history of a sample, and the scalars."""
    run = xaicli.open_run(address)
    rows = run.scan(mode="eval").filter(pl.col("sample_id") == 1).select("epoch", "loss").collect()
    return sorted(rows.rows()), run.scalars().data["value"].to_list()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of stores: `list`, or the key of a file."""
    asked: list[str] = []

    def counting(real: Any) -> Any:
        def counted(self: Store, *given: Any) -> Any:
            what = given[0] if given else "list"
            asked.append(what.key if isinstance(what, Entry) else what)
            return real(self, *given)

        return counted

    for name in ("entries", "fetch", "read"):
        monkeypatch.setattr(Store, name, counting(getattr(Store, name)))
    return asked


@pytest.mark.parametrize("kind", ["folder_store", "s3_store"])
def test_another_run_at_an_address_answers_alone_and_a_deleted_one_not_at_all(
    kind: str, xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(kind)
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    recorded(tmp_path / "first", 1, 11.0)
    recorded(tmp_path / "first", 2, 12.0)
    recorded(tmp_path / "second", 1, 0.5)
    push(tmp_path / "first", Store(address))
    assert answers(address) == ([(1, 11.0), (2, 12.0)], [11.0, 12.0])
    page = mirror_folder(address) / "reports" / "page.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("somebody's")
    taken_out(address)
    push(tmp_path / "second", Store(address))
    assert answers(address) == ([(1, 0.5)], [0.5])
    assert contents(mirror_folder(address)) == contents(tmp_path / "second")
    assert page.read_text() == "somebody's"
    taken_out(address)
    status, out, err = xai("samples", address, "--max", 1, "--min", 0)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: there is no run at {address}")
    assert contents(mirror_folder(address)) == {}
    assert [path.name for path in mirror_folder(address).parent.iterdir()] == [mirror_folder(address).name]


def test_a_question_at_an_address_asks_for_one_list_and_for_what_changed(
    s3_store: str, tmp_path: Path, asked: list[str]
) -> None:
    recorded(tmp_path / "run", 1, 0.5)
    store, root = Store(s3_store), tmp_path / "mirror"
    push(tmp_path / "run", store)
    before = contents(tmp_path / "run")
    asked.clear()
    mirror(store, root)
    assert asked[0] == "list"
    assert sorted(asked[1:]) == sorted(before)
    asked.clear()
    mirror(store, root)
    assert asked == ["list"]
    recorded(tmp_path / "run", 2, 0.25)
    push(tmp_path / "run", store)
    after = contents(tmp_path / "run")
    changed = [key for key in after if after[key] != before.get(key)]
    asked.clear()
    mirror(store, root)
    # The manifest twice where it changed: is it the same run?
    assert sorted(asked) == sorted(["list", *changed, *(["xai.json"] if "xai.json" in changed else [])])
    assert contents(root) == after
    assert "attempts/000000.json" not in changed


@pytest.mark.parametrize("kind", ["folder_store", "s3_store"])
def test_other_contents_of_the_same_name_and_size_are_fetched_anew(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store, root = Store(request.getfixturevalue(kind)), tmp_path / "mirror"
    for name in ("xai.json", "a.parquet", "attempts/000000.json"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text('{"run_id": "1"}')
    push(tmp_path / "run", store)
    mirror(store, root)
    taken_out(store.url, "a.parquet")
    for name in ("a.parquet", "attempts/000000.json"):
        (tmp_path / "run" / name).write_text('{"run_id": "2"}')
    push(tmp_path / "run", store)
    mirror(store, root)
    assert contents(root) == contents(tmp_path / "run")


def test_a_file_that_compaction_replaced_leaves_the_mirror_beside_its_readers(
    tmp_path: Path, xai, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    address = f"file://{tmp_path}/run"
    for epoch, loss in ((1, 11.0), (1, 12.0), (2, 13.0)):
        recorded(tmp_path / "run", epoch, loss)
    reader = xaicli.open_run(address)
    parts = {key for key in contents(tmp_path / "run") if "/part-" in key and key.startswith("data/")}
    assert len(parts) == 3
    here = mirror_folder(address)
    assert xai("compact", tmp_path / "run", "--grace", "0", "-q")[0] == 0
    kept = contents(tmp_path / "run")
    assert parts - set(kept)
    assert answers(address)[0] == [(1, 11.0), (1, 12.0), (2, 13.0)]
    assert contents(here) == kept
    assert sorted(reader.scan(mode="eval").filter(pl.col("sample_id") == 1).collect()["loss"]) == [11.0, 12.0, 13.0]
    said = [json.loads(xai("info", place, "--json")[1])["warnings"] for place in (tmp_path / "run", address)]
    assert said[0] == said[1]


def test_what_was_recorded_here_goes_with_its_address_but_never_what_is_nowhere_else(
    folder_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    here = mirror_folder(folder_store)
    recorded(folder_store, 1, 11.0)
    taken_out(folder_store)
    recorded(folder_store, 1, 0.5)  # a run of its own, nothing of the first goes up again
    assert answers(folder_store) == ([(1, 0.5)], [0.5])
    assert len(list((tmp_path / "bucket" / "exp1" / "attempts").glob("*.json"))) == 1
    taken_out(folder_store)
    with pytest.raises(XaiError, match=f"there is no run at {folder_store}"):
        xaicli.open_run(folder_store)
    recorded(folder_store, 1, 1.0)
    (here / "media").mkdir(exist_ok=True)
    (here / "media" / "late.parquet").write_text("was never sent")
    run_id = json.loads((here / "xai.json").read_text())["run_id"]
    taken_out(folder_store)
    recorded(tmp_path / "other", 3, 7.0)
    push(tmp_path / "other", Store(folder_store))
    with pytest.warns(UserWarning, match=f"does not hold run {run_id} any more; 1 of its files"):
        assert answers(folder_store) == ([(3, 7.0)], [7.0])
    aside = here.with_name(f"{here.name}-{run_id}")
    assert (aside / "media" / "late.parquet").read_text() == "was never sent"
    assert xaicli.open_run(aside).scan(mode="eval").collect()["loss"].to_list() == [1.0] * 3
    assert answers(folder_store) == ([(3, 7.0)], [7.0])


def test_a_run_that_has_not_yet_reached_its_address_is_read_here(
    folder_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XAI_HOME", str(tmp_path / "home"))
    recorded(mirror_folder(folder_store), 1, 0.5)
    assert answers(folder_store) == ([(1, 0.5)], [0.5])
    assert answers(folder_store) == ([(1, 0.5)], [0.5])


def test_two_runs_are_not_mixed_by_sync(folder_store: str, tmp_path: Path, xai) -> None:
    for name, loss in (("first", 1.0), ("second", 2.0)):
        recorded(tmp_path / name, 1, loss)
    assert xai("sync", tmp_path / "first", folder_store, "-q")[0] == 0
    there, here = contents(tmp_path / "bucket" / "exp1"), contents(tmp_path / "second")
    for pair, hint in (
        ((tmp_path / "second", folder_store), "sync to another address"),
        ((folder_store, tmp_path / "second"), "pull into another folder"),
    ):
        status, out, err = xai("sync", *pair)
        assert (status, out) == (1, "")
        assert f"hint: {hint}: two runs would be mixed" in err
    assert contents(tmp_path / "bucket" / "exp1") == there
    assert contents(tmp_path / "second") == here
