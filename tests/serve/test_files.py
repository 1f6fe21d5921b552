"""`/v1/files` on a real server, through the official client and through hostile bytes."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from tests.serve.conftest import Running, ScriptedEngine

from tunesmith.store import Store
from tunesmith.store.jobs import Jobs
from tunesmith.store.uploads import Uploads

ROW = {"messages": [{"role": "user", "content": "Do you open on Sundays?"}, {"role": "assistant", "content": "No."}]}


class Filing(NamedTuple):
    """Just enough of `Tuning` for the files."""

    uploads: Uploads
    jobs: Jobs


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "work")


@pytest.fixture
def server(store: Store, running: Callable[..., Running]) -> Running:
    tuning: Any = Filing(Uploads(store), Jobs(store.ledger))
    return running(boutique=ScriptedEngine("No."), tuning=tuning, max_file_bytes=100_000)


@pytest.fixture
def client(server: Running) -> openai.OpenAI:
    url = f"{server.url}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60, _strict_response_validation=True)


def kept(store: Store) -> list[str]:
    return sorted(path.name for path in store.files.iterdir()) if store.files.exists() else []


def test_a_file_is_sent_found_read_and_deleted(client: openai.OpenAI, store: Store) -> None:
    content = lines(ROW, ROW)
    sent = client.files.create(file=("../../etc/ro\nws.jsonl", content), purpose="fine-tune")
    assert (sent.status, sent.bytes, sent.purpose) == ("processed", len(content), "fine-tune")
    assert "\n" not in sent.filename
    assert kept(store) == [f"{sent.id}.jsonl"]
    assert client.files.retrieve(sent.id) == sent
    assert client.files.wait_for_processing(sent.id, poll_interval=0.01) == sent
    assert client.files.content(sent.id).content == content
    assert client.files.delete(sent.id).deleted
    assert kept(store) == []
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="There is no file"):
            ask(sent.id)


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=5-", 206, slice(5, None)),
        ("bytes=-4", 206, slice(-4, None)),
        ("bytes=3-99999999", 206, slice(3, None)),
        ("lines=0-3", 200, slice(None)),
        ("bytes=9-3", 200, slice(None)),
        ("bytes=", 200, slice(None)),
        ("bytes=-0", 200, slice(None)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("bytes=99999-", 416, None),
    ],
)
def test_a_part_of_a_file_may_be_asked_for(client: openai.OpenAI, asked: str, status: int, part: slice | None) -> None:
    content = lines(ROW)
    sent = client.files.create(file=("a.jsonl", content), purpose="fine-tune")
    headers = {"authorization": f"Bearer {client.api_key}", "range": asked}
    answer = httpx.get(f"{client.base_url}files/{sent.id}/content", headers=headers)
    assert answer.status_code == status
    if part is not None:
        assert answer.content == content[part]
    else:
        assert (answer.json()["error"]["code"], answer.headers["content-range"]) == ("invalid_range", f"bytes */{len(content)}")


def test_files_are_listed_page_by_page(client: openai.OpenAI) -> None:
    sent = [client.files.create(file=(f"{number}.jsonl", lines(ROW)), purpose="fine-tune").id for number in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == sent[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == sent
    page = client.files.list(limit=2, order="asc", after=sent[1])
    assert ([file.id for file in page.data], page.has_more) == (sent[2:4], True)
    assert client.files.list(purpose="batch").data == []
    with pytest.raises(openai.NotFoundError, match="after: there is no"):
        client.files.list(after="file-none")
    with pytest.raises(openai.BadRequestError, match="limit: must be a whole number"):
        client.files.list(limit=0)
    for query in ({"limit": ""}, {"order": ""}):
        with pytest.raises(openai.BadRequestError, match=f"{next(iter(query))}: must be"):
            client.files.list(extra_query=query)


def test_a_method_that_a_path_does_not_know_is_told_all_that_it_knows(client: openai.OpenAI) -> None:
    for path, known in (
        ("files", "GET, HEAD, POST"),
        ("files/file-1", "DELETE, GET, HEAD"),
        ("fine_tuning/jobs", "GET, HEAD, POST"),
    ):
        answer = httpx.put(f"{client.base_url}{path}", headers={"authorization": f"Bearer {client.api_key}"})
        assert (answer.status_code, answer.headers["allow"]) == (405, known)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"\n\n", "it is empty"),
        (lines(ROW, b"{broken", ROW), "Line 2: "),
        (lines({"messages": []}, {"messages": 3}), "2 of 2 rows cannot be trained on. Line 1: "),
        (lines(ROW, {"prompt": "a"}, ROW, {"messages": [{"role": "user", "content": "no answer"}]}), "Line 2: .*Line 4: "),
        (b"\xff\xfe\x00\x01" * 20, "cannot be used"),
    ],
)
def test_a_file_that_cannot_be_trained_on_is_refused_with_its_lines_and_not_kept(
    client: openai.OpenAI, store: Store, content: bytes, told: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=told) as caught:
        client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    assert (caught.value.param, caught.value.code) == ("file", "invalid_file_format")
    assert str(store.root) not in str(caught.value)
    assert kept(store) == []


def test_a_bad_row_among_many_is_told_and_left_out(client: openai.OpenAI) -> None:
    sent = client.files.create(file=("rows.jsonl", lines(*[ROW] * 150, {"messages": []})), purpose="fine-tune")
    assert sent.status == "processed"
    assert "Line 151" in (sent.status_details or "")


def test_other_purposes_and_expiry_are_refused_by_name(client: openai.OpenAI, store: Store) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose: 'batch' is not supported"):
        client.files.create(file=("rows.jsonl", lines(ROW)), purpose="batch")
    with pytest.raises(openai.BadRequestError, match=r"expires_after.*not supported"):
        client.files.create(
            file=("rows.jsonl", lines(ROW)), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
        )
    assert kept(store) == []


def test_a_file_over_the_limit_is_a_413_and_leaves_nothing(client: openai.OpenAI, store: Store) -> None:
    with pytest.raises(openai.APIStatusError, match="larger than 100,000 bytes") as caught:
        client.files.create(file=("rows.jsonl", lines(ROW) * 2000), purpose="fine-tune")
    assert (caught.value.status_code, kept(store)) == (413, [])


def test_a_full_disk_is_a_507_and_leaves_nothing(client: openai.OpenAI, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tunesmith.serve.multipart.os.fsync", fail)
    with pytest.raises(openai.InternalServerError, match="no space left") as caught:
        client.files.create(file=("rows.jsonl", lines(ROW)), purpose="fine-tune")
    assert (caught.value.status_code, kept(store)) == (507, [])


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + end


PURPOSE = b'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + lines(ROW)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (form(PURPOSE), "file: required"),
        (form(FILE), "purpose: required"),
        (form(PURPOSE, FILE, end=b""), "breaks off"),
        (form(PURPOSE, FILE, FILE), "more than one file"),
        (form(PURPOSE, FILE, b'Content-Disposition: form-data; name="path"\r\n\r\n/etc'), "path: unknown field"),
        (form(*[PURPOSE.replace(b"purpose", b"part%d" % number) for number in range(17)]), "more than 16 parts"),
        (form(PURPOSE.replace(b"fine-tune", b"evals"), PURPOSE, FILE), "purpose: stands twice"),
        (form(PURPOSE + b"x" * 5000, FILE), "purpose: longer than 4,096 bytes"),
        (form(b"X-Long: " + b"y" * 3000 + b"\r\n\r\nz", FILE), "header of the form is longer"),
        (b"no form at all", "malformed"),
        (b"", "breaks off"),
    ],
)
def test_a_form_that_makes_no_sense_is_refused_and_leaves_nothing(server: Running, store: Store, body: bytes, told: str) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{server.url}/v1/files", content=body, headers=headers)
    assert (answer.status_code, kept(store)) == (400, [])
    assert told in answer.json()["error"]["message"]


def test_what_is_no_form_is_a_415(server: Running) -> None:
    for kind in ("application/json", "multipart/form-data", "text/plain"):
        answer = httpx.post(f"{server.url}/v1/files", content=b"{}", headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_a_name_from_a_client_never_becomes_a_path(server: Running, store: Store) -> None:
    secret = store.root.parent / "secret.jsonl"
    secret.write_bytes(b"secret")
    for name in ("..%2Fsecret", "..%2F..%2Fsecret.jsonl", "%2Fetc%2Fpasswd", "file-%00"):
        for path in (f"/v1/files/{name}", f"/v1/files/{name}/content"):
            answer = httpx.get(server.url + path)
            assert answer.status_code == 404
            assert b"secret\n" not in answer.content


def test_a_server_without_tuning_has_no_files(running: Callable[..., Running]) -> None:
    plain = running(boutique=ScriptedEngine("No."))
    assert httpx.get(f"{plain.url}/v1/files").status_code == 404


def test_the_place_of_a_fault_is_told_once(client: openai.OpenAI) -> None:
    bad = b'{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}\n'
    with pytest.raises(openai.BadRequestError) as caught:
        client.files.create(file=("rows.jsonl", bad), purpose="fine-tune")
    assert str(caught.value.message).count("messages[0]") == 1
