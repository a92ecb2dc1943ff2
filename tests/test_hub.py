"""The hub, played by a server on the loopback address: fetched once, then read from the cache, also with no server."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import assert_same, tiny_checkpoint

import minimobile
from minimobile import formats
from minimobile.errors import FormatError, MinimobileError, UnavailableError
from minimobile.formats import huggingface
from minimobile.storage import hub
from minimobile.storage.hub import HubOptions

REPO = "google/mobilenet_test"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """A hub with the files of one directory as the repository REPO; `requests` and `tokens` are what came."""

    daemon_threads = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: /owner/name/resolve/revision/file, errors in X-Error-Code."""

    server: Hub

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        if "/resolve/" in self.path:  # huggingface_hub asks for more, on its own account
            self.server.requests.append(f"{self.command} {self.path}")
            self.server.tokens.add(self.headers.get("Authorization"))
        repo, _, rest = self.path.partition("/resolve/")
        revision, _, name = rest.partition("?")[0].partition("/")
        file = self.server.directory / name
        if repo == "/google/gated":
            self.fail(403, "GatedRepo")
        elif repo != f"/{REPO}":
            self.fail(401, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self.fail(404, "RevisionNotFound")
        elif not file.is_file():
            self.fail(404, "EntryNotFound")
        else:
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)

    def fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    huggingface.write(tmp_path / "repository", tiny_checkpoint())
    hub_server = Hub(tmp_path / "repository")
    thread = threading.Thread(target=hub_server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub_server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield hub_server
    stop(hub_server)
    thread.join()


def stop(server: Hub) -> None:
    server.shutdown()
    server.server_close()


def test_a_hub_id_is_fetched_once_and_then_read_from_the_cache(
    tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache dir é"
    first = formats.read(REPO, options=HubOptions(cache_dir=cache))
    assert_same(first, formats.read(tmp_path / "repository"))
    assert first.provenance["source"] == REPO
    assert first.provenance["revision"] == COMMIT
    fetched = [line for line in server.requests if line.startswith("GET")]
    assert sorted(line.rsplit("/", 1)[1] for line in fetched) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    formats.read(REPO, options=HubOptions(cache_dir=cache))
    assert [line for line in server.requests if line.startswith("GET")] == fetched

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = len(server.requests)
    assert_same(formats.read(REPO, options=HubOptions(cache_dir=cache)), first)
    assert len(server.requests) == before

    monkeypatch.delenv("HF_HUB_OFFLINE")
    stop(server)
    assert_same(formats.read(REPO, options=HubOptions(cache_dir=cache)), first)
    assert_same(formats.read(REPO, options=HubOptions(revision=COMMIT, cache_dir=cache)), first)


def test_a_token_goes_with_every_request_and_nothing_is_asked_where_the_cache_has_to_do(
    tmp_path: Path, server: Hub
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(OSError, match="local_files_only forbids to fetch it"):
        minimobile.load(REPO, cache_dir=cache, local_files_only=True)
    assert not server.requests
    first = formats.read(REPO, options=HubOptions(cache_dir=cache, token="hf_secret"))
    assert server.tokens == {"Bearer hf_secret"}
    before = len(server.requests)
    assert_same(formats.read(REPO, options=HubOptions(cache_dir=cache, local_files_only=True)), first)
    assert len(server.requests) == before
    assert_same(formats.read(REPO, options=HubOptions(cache_dir=cache, force_download=True)), first)
    assert sum(line.startswith("GET") for line in server.requests[before:]) >= 3


def test_a_subfolder_of_a_repository_is_read_by_models_configs_and_processors(tmp_path: Path, server: Hub) -> None:
    folder = server.directory / "nets" / "small"
    folder.mkdir(parents=True)
    for file in [file for file in server.directory.iterdir() if file.is_file()]:
        file.rename(folder / file.name)
    options = {"cache_dir": tmp_path / "cache", "subfolder": "nets/small", "revision": COMMIT}
    checkpoint = formats.read(REPO, options=HubOptions(**options))
    assert_same(checkpoint, formats.read(folder))
    assert checkpoint.provenance["revision"] == COMMIT
    assert minimobile.AutoConfig.from_pretrained(REPO, **options) == checkpoint.config
    assert type(checkpoint.config).from_pretrained(REPO, **options) == checkpoint.config
    assert minimobile.AutoImageProcessor.from_pretrained(REPO, **options).size
    with pytest.raises(OSError, match=r"expected config\.json in this repository"):
        minimobile.AutoConfig.from_pretrained(REPO, cache_dir=tmp_path / "cache")


def test_another_model_of_the_hub_is_described(tmp_path: Path, server: Hub) -> None:
    (server.directory / "config.json").write_text('{"model_type": "efficientnet"}')
    found = formats.describe(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))
    assert (found.format, len(found.entries)) == ("Hugging Face directory", 5)
    assert "got 'efficientnet'" in str(found.problem)


def test_shards_are_fetched_too(tmp_path: Path, server: Hub) -> None:
    from hostile import shard

    shard(server.directory)
    assert len(formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache")).weights) == 4


def test_h11_an_index_that_points_elsewhere_fetches_nothing_there(tmp_path: Path, server: Hub) -> None:
    from hostile import shard

    shard(server.directory, {"classifier.bias": "../../secret.safetensors"})
    with pytest.raises(FormatError, match="plain name"):
        formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))
    assert not [line for line in server.requests if "secret" in line]


def test_a_processor_that_cannot_be_fetched_is_a_warning(
    tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cached by somebody who needed the network alone, then offline."""
    for name in ("config.json", "model.safetensors"):
        hub.locate(REPO, [name], options=HubOptions(cache_dir=tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.warns(UserWarning, match=r"preprocessor_config\.json is not in the cache .* read without it"):
        assert formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache")).processor is None


def test_a_repository_without_processor_is_whole(tmp_path: Path, server: Hub) -> None:
    (server.directory / "preprocessor_config.json").unlink()
    assert formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache")).processor is None


def test_locate_finds_one_file_there_and_here(tmp_path: Path, server: Hub) -> None:
    names = ["processor_config.json", "preprocessor_config.json"]
    found = hub.locate(REPO, names, options=HubOptions(cache_dir=tmp_path / "cache"))
    assert found.read_bytes() == (server.directory / names[1]).read_bytes()
    assert hub.locate(server.directory, names) == server.directory / names[1]
    with pytest.raises(FormatError, match="expected x or y there, found none"):
        hub.locate(server.directory, ["x", "y"])
    with pytest.raises(FormatError, match=r"expected x or y in this repository .* found none"):
        hub.locate(REPO, ["x", "y"], options=HubOptions(cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize(
    ("source", "revision", "match"),
    [
        ("google/nothing", None, "no such file or directory here, and no such public repository .*minimobile demo"),
        (REPO, "v9", "no revision 'v9' of this repository"),
        ("google/gated", None, "access to this repository has to be granted"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(
    tmp_path: Path, server: Hub, source: str, revision: str | None, match: str
) -> None:
    with pytest.raises(FormatError, match=match) as caught:
        formats.read(source, options=HubOptions(revision=revision, cache_dir=tmp_path / "cache"))
    assert "\n" not in str(caught.value)
    assert source in str(caught.value)


def test_a_repository_without_weights_is_one_sentence(tmp_path: Path, server: Hub) -> None:
    (server.directory / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"expected model\.safetensors or .* found none; use a local directory"):
        formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))


def test_offline_and_not_cached_is_one_sentence(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match=r"config\.json is not in the cache .*HF_HUB_OFFLINE.*minimobile demo"):
        formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))
    assert not server.requests


def test_no_network_is_one_sentence_and_soon(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(server)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)  # between one try and the next
    with pytest.raises(UnavailableError, match=r"cannot be reached .*use a local directory.*minimobile demo") as caught:
        formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))
    assert sum(slept) < 10
    assert "\n" not in str(caught.value)


def test_a_hub_that_never_answers_is_given_up(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TIMEOUT", 0.3)
    end = threading.Event()
    monkeypatch.setattr(Handler, "answer", lambda *_, **__: end.wait())
    with pytest.raises(UnavailableError, match="cannot be reached"):
        formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))
    end.set()


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnavailableError, match=r"pip install 'minimobile\[hub\]'"):
        formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize(
    "source",
    [
        "absent",
        "./google/net",
        "a/b/c",
        "/google/net",
        "google/net.h5",
        "google/",
        "~/absent/net",
        "a" * 300,
        "a\0b",
        "google/a..b",
        "-a/b",
        "a/b-",
    ],
)
def test_a_path_is_not_sought_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FormatError, match="no such file or directory"):
        formats.read(source)


def test_an_existing_directory_wins_over_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    huggingface.write(tmp_path / "google" / "net", tiny_checkpoint())
    assert formats.read("google/net").weights


def test_importing_the_formats_does_not_import_the_hub() -> None:
    import subprocess

    code = "import minimobile.formats, sys; assert 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, cwd=Path(formats.__file__).parents[2])


def test_every_error_of_the_hub_is_one_of_ours(tmp_path: Path, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (400, 404, 429, 500, 503):
        monkeypatch.setattr(Handler, "answer", lambda self, with_body, status=status: self.fail(status, ""))
        monkeypatch.setattr(hub, "TIMEOUT", 1.0)
        with contextlib.suppress(MinimobileError):
            formats.read(REPO, options=HubOptions(cache_dir=tmp_path / "cache"))
            raise AssertionError(f"status {status} was taken for an answer")
