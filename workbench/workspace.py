"""workspace.toml: who is watched, where, and what counts as news.

The file is read into frozen pydantic models. Unknown keys are errors, and a bad file gives one message per problem,
each with its line, its key and what is allowed there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from workbench.errors import WorkspaceError
from workbench.files import write_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "ArchivePolicy",
    "CollectPolicy",
    "Company",
    "CurrencyPolicy",
    "EntityPolicy",
    "ModelChoice",
    "Models",
    "Policies",
    "Product",
    "SentimentPolicy",
    "Source",
    "SourceKind",
    "SourceRef",
    "TaskPolicy",
    "Thresholds",
    "Topic",
    "TopicPolicy",
    "Workspace",
    "load_workspace",
]

SourceKind = Literal["product", "pricing", "changelog", "reviews", "news", "landing", "ads"]
"""What a page is for; decides which readers run on it and how a change on it is weighed."""

FILE_NAME = "workspace.toml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


_Identifier = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
_Text = Annotated[str, Field(min_length=1, max_length=200)]


def _http_url(value: str) -> str:
    if any(char.isspace() or not char.isprintable() for char in value):
        raise ValueError("must not hold spaces or control characters; write a space as %20")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// address with a host")
    if parts.username or parts.password:
        raise ValueError("must not carry a user name or password")
    return value


_Url = Annotated[str, Field(max_length=2000), AfterValidator(_http_url)]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class Product(_Frozen):
    """A product by name. Products of the same ``category`` are compared in the price index."""

    name: _Text
    aliases: tuple[_Text, ...] = ()
    category: _Text | None = None


class Source(_Frozen):
    """A page to watch, or with ``discover`` a sitemap or feed that names the pages."""

    url: _Url
    kind: SourceKind
    id: _Identifier = ""
    """Stable name of the source in the lake; made from the address when left out."""
    product: str | None = None
    """Name of the product the page is about, as listed under ``products``."""
    discover: Literal["none", "sitemap", "feed"] = "none"
    include: str | None = None
    """Regular expression; only discovered addresses that it finds are fetched."""
    max_pages: Annotated[int, Field(ge=1, le=1000)] = 20

    @field_validator("include")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"is not a regular expression: {error}") from None
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_id(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("url"), str) and not data.get("id"):
            data = {**data, "id": _id_from_url(data["url"])}
        return data


def _id_from_url(url: str) -> str:
    parts = urlsplit(url)
    words = re.sub(r"[^a-z0-9]+", "-", f"{parts.hostname or ''}{parts.path}".lower()).strip("-") or "source"
    digest = hashlib.sha256(url.encode()).hexdigest()[:6]
    # The digest keeps two addresses apart that differ in their query only.
    return f"{words[:56]}-{digest}" if parts.query or len(words) > 63 else words


class Company(_Frozen):
    """A company: the user's own or a competitor."""

    id: _Identifier
    name: _Text
    aliases: tuple[_Text, ...] = ()
    products: tuple[Product, ...] = ()
    sources: tuple[Source, ...] = ()

    @model_validator(mode="after")
    def _products_exist(self) -> Company:
        names = {product.name for product in self.products}
        for source in self.sources:
            if source.product is not None and source.product not in names:
                allowed = ", ".join(sorted(names)) or "none; add [[competitors.products]] first"
                raise ValueError(f"source {source.id}: no product is named {source.product!r} (known: {allowed})")
        return self


class Topic(_Frozen):
    """A topic reviews and claims are filed under."""

    id: _Identifier
    label: _Text
    keywords: tuple[_Text, ...] = ()


class Thresholds(_Frozen):
    """What counts as news."""

    price_change_percent: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Smaller price moves are recorded but never a finding."""
    price_alarm_percent: Annotated[float, Field(ge=0, le=100)] = 10.0
    """A price move of this size is of high severity."""
    min_reviews: Annotated[int, Field(ge=1)] = 30
    """Below this number of reviews no sentiment is stated."""
    stale_after_days: Annotated[int, Field(ge=1)] = 8
    flap_window_days: Annotated[int, Field(ge=1, le=366)] = 28
    """A value that goes A, B, A inside this window is reported once, as flapping."""


class CollectPolicy(_Frozen):
    """How politely and how far the collector goes."""

    contact: str = ""
    """An address or page where a site's owner can reach you; sent in the user agent."""
    requests_per_second: Annotated[float, Field(gt=0, le=50)] = 1.0
    """Per host."""
    connections_per_host: Annotated[int, Field(ge=1, le=16)] = 2
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    """For one whole response, not for one read."""
    max_bytes: Annotated[int, Field(ge=1024, le=10_000_000)] = 10_000_000
    """Of the decoded body."""
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 5
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    allow_private_hosts: tuple[str, ...] = ()
    """Host names or addresses that may resolve to a private address. Everything else must be public."""


class ArchivePolicy(_Frozen):
    """How long evidence is kept."""

    retention_days: Annotated[int, Field(ge=28)] | None = None
    """Snapshots older than this are deleted by ``workbench prune``; left out: kept for good."""


class CurrencyPolicy(_Frozen):
    """Fixed rates for comparing prices across currencies. Nothing is looked up."""

    base: _Currency = "USD"
    rates: dict[_Currency, Annotated[Decimal, Field(gt=0)]] = Field(default_factory=dict)
    """One unit of the key in units of ``base``."""


class ModelChoice(_Frozen):
    """Which model reads for a task: exactly one of a bundled one, a folder, or a Hugging Face checkpoint."""

    bundled: _Identifier | None = None
    """Name of a folder under engines/."""
    path: str | None = None
    """A folder with model.onnx, tokenizer.json and model.toml, or with a checkpoint to export; relative to the
    workspace."""
    huggingface: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """A checkpoint such as org/name; exported once to ONNX (extra `export`)."""
    labels: dict[str, str] = Field(default_factory=dict)
    """The checkpoint's label to the workbench's, for example {LABEL_0 = "negative"}."""

    @model_validator(mode="after")
    def _exactly_one(self) -> ModelChoice:
        if sum(value is not None for value in (self.bundled, self.path, self.huggingface)) != 1:
            raise ValueError("name exactly one of bundled, path and huggingface")
        return self


class Models(_Frozen):
    """The model of each task; the bundled one unless said otherwise."""

    sentiment: ModelChoice = ModelChoice(bundled="reviews")
    topics: ModelChoice = ModelChoice(bundled="reviews")
    entities: ModelChoice = ModelChoice(bundled="reviews")


EnginePrecision = Literal["fp32", "fp16", "int8", "mixed"]
"""mixed: INT8 with some groups of layers kept in FP16, as `workbench engines search` finds them."""


class TaskPolicy(_Frozen):
    """Which engines may read for a task. FP32 always may."""

    precisions: tuple[EnginePrecision, ...] = ("fp16", "int8")
    """Precisions an engine may have; FP32 reads when none of them passed. Where int8 may read, mixed may."""
    budget: Annotated[float, Field(gt=0, le=100)] | None = None
    """Points an engine may lose against FP32; left out: 0.3 for fp16, 1.0 for int8 and mixed."""
    metric: str | None = None
    """What it is judged by; left out: accuracy of sentiment, macro_f1 of topics, entity_f1 of entities."""
    allow_inconclusive: bool = False
    """Whether an engine serves that was not shown to be worse, but by too few texts to be shown to be as good."""

    def allows(self, precision: str) -> bool:
        """Whether an engine of ``precision`` may read."""
        return (
            precision == "fp32"
            or precision in self.precisions
            or (precision == "mixed" and "int8" in self.precisions)
        )


class SentimentPolicy(TaskPolicy):
    """Engines for sentiment."""

    metric: Literal["accuracy", "macro_f1"] | None = None


class TopicPolicy(TaskPolicy):
    """Engines for topics."""

    metric: Literal["accuracy", "macro_f1"] | None = None


class EntityPolicy(TaskPolicy):
    """Engines for entities."""

    metric: Literal["entity_f1"] | None = None


class Policies(_Frozen):
    """The policy of each task."""

    sentiment: SentimentPolicy = SentimentPolicy()
    topics: TopicPolicy = TopicPolicy()
    entities: EntityPolicy = EntityPolicy()


class SourceRef(NamedTuple):
    """A source together with the company it belongs to."""

    company: Company
    source: Source


class Workspace(_Frozen):
    """Everything workspace.toml says, and the folder it says it for."""

    name: _Identifier
    company: Company
    competitors: tuple[Company, ...]
    topics: tuple[Topic, ...] = ()
    thresholds: Thresholds = Thresholds()
    collect: CollectPolicy = CollectPolicy()
    archive: ArchivePolicy = ArchivePolicy()
    currency: CurrencyPolicy = CurrencyPolicy()
    models: Models = Models()
    policy: Policies = Policies()

    _root: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _consistent(self) -> Workspace:
        if not self.competitors:
            raise ValueError("competitors is empty; add at least one [[competitors]] table")
        companies = [company.id for company in self.companies]
        sources = [ref.source.id for ref in self.sources()]
        for what, ids in (("company", companies), ("source", sources)):
            double = sorted({i for i in ids if ids.count(i) > 1})
            if double:
                raise ValueError(f"{what} id used twice: {', '.join(double)}; give each an id of its own")
        return self

    @property
    def root(self) -> Path:
        """The workspace folder."""
        return self._root

    @property
    def archive_dir(self) -> Path:
        """Folder of the WARC files."""
        return self._root / "archive"

    @property
    def lake_dir(self) -> Path:
        """Folder of the Delta tables."""
        return self._root / "lake"

    @property
    def companies(self) -> tuple[Company, ...]:
        """The own company first, then the competitors in file order."""
        return (self.company, *self.competitors)

    def company_by_id(self, company_id: str) -> Company:
        """The company with that id. Raises KeyError."""
        for company in self.companies:
            if company.id == company_id:
                return company
        raise KeyError(company_id)

    def sources(self) -> Iterator[SourceRef]:
        """All sources, the own company's first."""
        for company in self.companies:
            for source in company.sources:
                yield SourceRef(company, source)

    def salt(self) -> bytes:
        """The secret that review authors are hashed with: made once, kept in the file ``salt``, never in the lake."""
        path = self._root / "salt"
        if not path.exists():
            write_text(path, secrets.token_hex(32) + "\n")
            path.chmod(0o600)
        return bytes.fromhex(path.read_text().strip())


def load_workspace(folder: Path | str) -> Workspace:
    """Read ``folder``/workspace.toml.

    Raises WorkspaceError when the file is missing, is not TOML, or says something that is not allowed; its
    ``problems`` name line, key and what is allowed, one entry a problem.
    """
    root = Path(folder).expanduser().resolve()
    if root.name == FILE_NAME and root.is_file():
        root = root.parent
    path = root / FILE_NAME
    if not path.is_file():
        raise WorkspaceError(f"No {FILE_NAME} in {root}. Make one with: workbench init {folder}")
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise WorkspaceError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8 and try again.") from None
    except tomllib.TOMLDecodeError as error:
        raise WorkspaceError(f"{path} is not valid TOML: {error}. Mend that line and try again.") from None
    try:
        workspace = Workspace.model_validate(data)
    except ValidationError as error:
        problems = _problems(error, text, data)
        lines = "\n".join(f"  {problem}" for problem in problems)
        many = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise WorkspaceError(
            f"{path} has {many}:\n{lines}\nMend them and check with: workbench doctor -w {folder}", problems=problems
        ) from None
    workspace._root = root
    return workspace


def _problems(error: ValidationError, text: str, data: dict[str, Any]) -> list[str]:
    lines = _lines_by_key(text)
    found: list[tuple[int, str]] = []
    for item in error.errors(include_url=False):
        location = tuple(part for part in item["loc"] if part != "[key]")
        # The longest known prefix of the key has a line; a missing key is on its table's line.
        line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), 0)
        message = _message(item, location)
        key = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in location)
        where = f"line {line}, {key}" if line and key else key or "the file"
        found.append((line, f"{where}: {message}"))
    return [message for _, message in sorted(found, key=lambda pair: pair[0])]


def _message(item: Any, location: tuple[int | str, ...]) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "extra_forbidden":
        allowed = ", ".join(_fields_at(location[:-1]))
        return f"unknown key; allowed here: {allowed}"
    if kind == "missing":
        return "is required and not given"
    if kind == "literal_error":
        return f"{item['input']!r} is not allowed; use {context['expected']}"
    if kind == "value_error":
        return str(context.get("error", item["msg"]))
    if kind == "string_pattern_mismatch":
        forms = {
            r"^[A-Z]{3}$": "three capital letters (ISO 4217), for example USD",
            r"^[\w.-]+/[\w.-]+$": "the form org/name",
        }
        allowed = forms.get(context["pattern"], "lower-case letters, digits, - and _")
        return f"{item['input']!r} is not allowed; use {allowed}"
    shown = repr(item["input"])
    return f"{item['msg'][0].lower()}{item['msg'][1:]}, got {shown if len(shown) < 80 else shown[:77] + '...'}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Names of the keys allowed in the table at ``location``."""
    model: type[BaseModel] = Workspace
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        nested = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _lines_by_key(text: str) -> dict[tuple[int | str, ...], int]:
    """Map each key of a TOML text, as pydantic names it, to its line (1-based)."""
    found: dict[tuple[int | str, ...], int] = {}
    counts: dict[tuple[int | str, ...], int] = {}
    table: tuple[int | str, ...] = ()
    header = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]")
    assignment = re.compile(r"^\s*([A-Za-z0-9_.\"'-]+)\s*=")
    for number, line in enumerate(text.splitlines(), 1):
        if match := header.match(line):
            table = ()
            parts = [part.strip().strip("\"'") for part in match[2].split(".")]
            for index, part in enumerate(parts):
                table = (*table, part)
                last = index == len(parts) - 1
                if last and match[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                if table in counts:
                    table = (*table, counts[table])
            found.setdefault(table, number)
        elif match := assignment.match(line):
            parts = [part.strip().strip("\"'") for part in match[1].split(".")]
            for index in range(len(parts)):
                found.setdefault((*table, *parts[: index + 1]), number)
    return found
