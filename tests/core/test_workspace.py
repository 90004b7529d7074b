import textwrap
from importlib.resources import files

import pytest
from pydantic import ValidationError

from workbench.errors import WorkspaceError
from workbench.workspace import load_workspace

GOOD = """
name = "shop"
[company]
id = "own"
name = "Own"
[[company.products]]
name = "Thing"
[[company.sources]]
url = "https://own.example/thing?variant=2"
kind = "product"
product = "Thing"
[[competitors]]
id = "rival"
name = "Rival"
[[competitors.sources]]
url = "https://rival.example/pricing"
kind = "pricing"
"""


def write(folder, text):
    (folder / "workspace.toml").write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def test_a_workspace_is_read_and_frozen(tmp_path):
    workspace = load_workspace(write(tmp_path, GOOD))
    assert [ref.source.id for ref in workspace.sources()] == [
        workspace.company.sources[0].id,
        "rival-example-pricing",
    ]
    assert workspace.company.sources[0].id.startswith("own-example-thing-")
    assert workspace.thresholds.min_reviews == 30
    assert workspace.archive_dir == tmp_path / "archive"
    with pytest.raises(ValidationError):
        workspace.name = "other"


def test_ids_differ_where_only_the_query_differs(tmp_path):
    two = GOOD + '[[competitors.sources]]\nurl = "https://rival.example/p?id=1"\nkind = "product"\n'
    two += '[[competitors.sources]]\nurl = "https://rival.example/p?id=2"\nkind = "product"\n'
    ids = [ref.source.id for ref in load_workspace(write(tmp_path, two)).sources()]
    assert len(set(ids)) == 4


def test_the_file_init_writes_is_valid(tmp_path):
    template = files("workbench").joinpath("workspace_template.toml").read_text(encoding="utf-8")
    assert load_workspace(write(tmp_path, template)).name == "my-market"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "shop"', 'name = "My Shop"', "line 2, name: 'My Shop' is not allowed; use lower-case letters"),
        (
            'kind = "pricing"',
            'kind = "prices"',
            "line 17, competitors.1.sources.1.kind: 'prices' is not allowed; use",
        ),
        ('name = "Rival"', 'nmae = "Rival"', "unknown key; allowed here: id, name, aliases, products, sources"),
        ('name = "Rival"', 'nmae = "Rival"', "line 12, competitors.1.name: is required and not given"),
        ("https://rival.example", "file:///etc", "must be an http:// or https:// address"),
        ("https://rival.example/pricing", "https://rival.example/our prices", "write a space as %20"),
        ("https://rival.example", "https://me:pw@rival.example", "must not carry a user name"),
        ('product = "Thing"', 'product = "Thign"', "no product is named 'Thign' (known: Thing)"),
        ('id = "rival"', 'id = "own"', "company id used twice: own"),
        ('name = "shop"', 'name = "shop"\ncompetitors = []', None),
    ],
)
def test_each_problem_names_line_key_and_what_is_allowed(tmp_path, old, new, problem):
    with pytest.raises(WorkspaceError) as caught:
        load_workspace(write(tmp_path, GOOD.replace(old, new)))
    if problem:
        assert any(problem in line for line in caught.value.problems), caught.value.problems
        assert "workbench doctor" in str(caught.value)
    else:
        assert "not valid TOML" in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path):
    bad = GOOD.replace('kind = "pricing"', 'kind = "x"').replace('kind = "product"', 'kind = "y"')
    bad += "[thresholds]\nmin_reviews = 0\ncolour = 1\n[currency]\nbase = 'usd'\n"
    with pytest.raises(WorkspaceError, match="5 problems") as caught:
        load_workspace(write(tmp_path, bad))
    assert len(caught.value.problems) == 5
    assert "three capital letters" in "".join(caught.value.problems)


def test_no_competitors_is_one_clear_problem(tmp_path):
    text = GOOD[: GOOD.index("[[competitors]]")].replace("[company]", "competitors = []\n[company]")
    with pytest.raises(WorkspaceError, match=r"add at least one \[\[competitors\]\] table"):
        load_workspace(write(tmp_path, text))


def test_a_missing_file_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(WorkspaceError, match="workbench init"):
        load_workspace(tmp_path)


def test_a_file_in_another_encoding_is_told_so(tmp_path):
    (tmp_path / "workspace.toml").write_bytes('name = "Käse"'.encode("latin-1"))
    with pytest.raises(WorkspaceError, match="not UTF-8"):
        load_workspace(tmp_path)


def test_the_salt_is_made_once_and_is_private(tmp_path):
    workspace = load_workspace(write(tmp_path, GOOD))
    first = workspace.salt()
    assert len(first) == 32
    assert load_workspace(tmp_path).salt() == first
    assert (tmp_path / "salt").stat().st_mode & 0o077 == 0
