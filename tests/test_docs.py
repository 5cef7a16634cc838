"""The documentation site: what of it is generated, the commands and the code on its pages, and a strict build."""

import importlib.util
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path

import documented
import pytest
import yaml

from landscape_cli.composing import load
from landscape_cli.config_path import config_folder
from landscape_cli.listing import catalogue, items_of, shipped
from landscape_cli.validation import load_class

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md") if path.name != "own.md")  # own.md has tests of its own
CODE = [path for path in PAGES if documented.blocks(path.read_text(encoding="utf-8"), "python")]
COMMANDS = sorted({words for path in PAGES for words in documented.commands(path.read_text(encoding="utf-8"))})


def module(name):
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


sys.path.append(str(DOCS))  # as MkDocs does while it loads a hook
generate, theorems, formulas = module("generate"), module("theorems"), module("formulas")
sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def experiment_pages():
    return {several[0].page: generate.family_page(path) for path, several in generate.families().items()}


def section(page: str, anchor: str) -> str:
    """A page from a heading with an anchor to the next heading of any level."""
    heading = page.index(f"{{ #{anchor} }}")
    following = page.find("\n## ", heading), page.find("\n### ", heading)
    return page[heading : min([place for place in following if place > 0], default=None)]


def in_a_cell(text: str) -> str:
    """What a cell shows, whatever it was written as."""
    return re.sub(r"\\(.)", r"\1", text).replace("&lt;", "<")


# What is generated


def test_every_item_of_the_thesis_is_on_the_map_with_its_commands_and_files():
    page = generate.thesis_map()
    assert page.count("\n### ") == len(catalogue()) == 64
    for item in catalogue():
        own = section(page, generate.anchor(item))
        assert item.caption.strip() in own
        assert item.note.strip() in own
        for name, file in item.experiments.items():
            folder, suffix = ("figures", "pdf") if item.name.startswith("figure") else ("tables", "csv")
            row = next(line for line in own.splitlines() if f"`{folder}/{file}.{suffix}`" in line)
            assert f"`landscape run experiment={name}`" in row
            assert f"#{name})" in row


def test_every_experiment_is_listed_once():
    page = generate.listing()
    for name, title in shipped().items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| [`{name}`]("))
        assert title in in_a_cell(row)
        for item in items_of(name):
            assert f"[{item.name}](../thesis.md#{generate.anchor(item)})" in row


@pytest.mark.parametrize("one", generate.experiments(), ids=lambda one: one.name)
def test_an_experiments_page_has_all_of_it(one, experiment_pages):
    page = experiment_pages[one.page]
    own = section(page, one.name)
    assert one.text.strip() in own
    profiles = {path.stem for path in (config_folder() / "profile").glob("*.yaml")}
    commands = documented.commands(own)
    assert commands[-1] == ("landscape", "show", one.name)
    assert [words[:3] for words in commands[:-1]] == [("landscape", "run", f"experiment={one.name}")] * 3
    given = [word.removeprefix("profile=") for words in commands for word in words if word.startswith("profile=")]
    assert given == ["quick", "embedded"]
    assert set(given) <= profiles
    for item in one.items:
        assert f"`outputs/{generate.output_file(item, one.name)}`" in own
    for dataset in one.datasets:
        assert (config_folder() / "dataset" / f"{dataset}.yaml").is_file()
        assert "your own" in own if dataset == generate.OWN else f"`{dataset}`" in own
    kind = load_class(one.family)
    assert kind.__doc__.split("\n")[0][:20] in in_a_cell(page)
    for field in fields(kind.Options):
        assert f"\n| `{field.name}` | " in page


@pytest.mark.parametrize(
    "name",
    [
        "fc_mnist",
        "conv_layers_mnist",
        "fc_features_mnist",
        "sample_size_methods_boston",
        "pruning_wine",
        "likelihood_liver",
        "distillation_language_opus100",
        "quickstart",
    ],
)
def test_the_data_set_that_stands_in_is_the_one_that_is_taken(name):
    one = next(one for one in generate.experiments() if one.name == name)
    (dataset,) = one.datasets
    taken = load([f"experiment={name}", "profile=embedded"]).dataset.name
    assert taken == (one.stand_in(dataset) or dataset)
    if name not in ("pruning_wine", "quickstart"):
        assert taken != dataset


def test_options_carry_the_comments_behind_them(experiment_pages):
    page = experiment_pages["experiments/sample_size_methods.md"]
    assert "| `resamples` | `100` | ≥ 2 | B of every size, a seed |" in page
    assert "| `available_sizes` | `[]` | ≥ 1 | these in their place |" in page
    assert generate.yaml_comments("measure:\n  a: 1 # one\n  b: [x] # two\ncaps: {}\n  c: 1 # no\n") == {
        "a": "one",
        "b": "two",
    }
    # a class's options come after those that it inherits
    found = generate.comments(load_class("experiments.chapter4.pruning.Pruning").Options)
    assert {"noise_copies", "covariance"} <= set(found)


def test_true_and_one_are_different_defaults():
    assert [generate._plain(value) for value in (True, 1, None, [0.5, False])] == ["true", "1", "null", "[0.5, false]"]


def test_every_theorem_and_counterexample_is_on_the_page_with_its_numbers():
    from experiments.beyond.statements import COUNTEREXAMPLES, STATEMENTS

    page = theorems.theorems()
    for one in STATEMENTS:
        assert f"| {one.kind}\u00a0{one.theorem} |" in page
    rows = [in_a_cell(line) for line in page.partition("## Counterexamples")[2].splitlines()]
    for one in COUNTEREXAMPLES:
        network, _, norm = one.text.rpartition(": ")
        row = next(line for line in rows if f"| {network} |" in line and line.startswith(f"| {one.theorem},"))
        exact, printed = re.search(r"= ([\d.e-]+), printed ([\d.e-]+)", norm).groups()
        shown = [float(cell) for cell in row.strip("| ").split(" | ")[-3:]]
        assert shown[:2] == pytest.approx([float(exact), float(printed)], rel=0.01)
        assert shown[1] < shown[0] <= shown[2] * (1 + 1e-3)


def test_blocks_come_from_the_readme_as_they_are():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = generate.with_blocks((DOCS / "adding.md").read_text(encoding="utf-8"))
    assert "<!-- README" not in page
    for language, holding in (("python", "class LossShare("), ("yaml", "name: loss_share")):
        (block,) = (text for text in documented.blocks(page, language) if holding in text)
        assert block in documented.blocks(readme, language)
    start = generate.with_blocks((DOCS / "index.md").read_text(encoding="utf-8"))
    assert documented.commands(start)[:2] == [("make", "quickstart"), ("make", "test")]
    with pytest.raises(ValueError, match="no block of python with 'nowhere'"):
        generate.readme_block("python", "nowhere")


# Formulas and references


def test_formulas_become_mathml_that_browsers_know():
    pytest.importorskip("latex2mathml", reason="make docs installs it")
    page = r'<p><span class="arithmatex">\(\mathbf H_O \le \mathcal L\)</span></p>'
    found = formulas.formulas(page)
    assert "<math" in found
    assert "<mi>\N{MATHEMATICAL BOLD CAPITAL H}</mi>" in found
    assert "<mi>\N{SCRIPT CAPITAL L}</mi>" in found
    assert "arithmatex" not in found
    assert "mathvariant" not in found
    display = formulas.formulas('<div class="arithmatex">\\[\n\\mathrm{softmax}(z) &lt; 1\\]</div>')
    assert 'display="block"' in display
    assert "<mi>softmax</mi>" in display
    for unknown in (r"\foo x", r"\begin{aligned}a&b\end{aligned}"):
        with pytest.raises(ValueError, match="latex2mathml does not know"):
            formulas.mathml(unknown, "inline")


def test_references_of_docstrings_become_links_or_code():
    page = ":func:<code>~landscape_cli.curvature.dense</code>, :class:<code>Hessian</code>"
    expected = (
        '<autoref optional identifier="landscape_cli.curvature.dense"><code>dense</code></autoref>, '
        "<code>Hessian</code>"
    )
    assert formulas.roles(page) == expected
    assert generate.readable("see :func:`~a.b.c`, |x|, ``d_e`` and f_g") == "see `c`, \\|x\\|, `d_e` and f\\_g"


def test_docstrings_as_griffe_reads_them():
    pytest.importorskip("griffe", reason="make docs installs it")
    reading = module("fields")
    assert reading.comment("norms: Tensor  # (n,) float64, ‖H_i - H̄‖") == "(n,) float64, ‖H_i - H̄‖"
    assert reading.comment('name: str = "#"') == ""
    text = "Do it.\n\nReturns\n-------\nShape (B,),\nin nats.\n\nRaises\n------\nBadInput\n    Never."
    expected = text.replace("Shape (B,),\nin nats.", "Tensor\n    Shape (B,),\n    in nats.")
    assert reading.typed(text, "Tensor") == expected
    assert reading.typed(expected, "Tensor") == expected
    shared = "Do it.\n\nParameters\n----------\nx, y\n    Shape\n    (B,).\nz\n    One, two\n    three."
    assert reading.apart(shared) == shared.replace("x, y\n", "x\n    Shape\n    (B,).\ny\n")


# The pages


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_are_valid(words):
    documented.check(words)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(DOCS).as_posix())
def test_code_runs(path):
    names = {"__name__": "page"}
    for block in documented.blocks(path.read_text(encoding="utf-8"), "python"):
        exec(block, names)


def test_a_check_refuses_what_is_not_valid():
    for command in ("landscape run experiment=fc_mnits", "landscape show nothing", "landscape runn", "make nothing"):
        with pytest.raises((Exception, AssertionError)):
            documented.check(tuple(command.split()))


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/]+\.md", str(yaml.safe_load(text)["nav"])))
    generated = {"thesis.md", "experiments/index.md", "mathematics/theorems.md"}
    assert {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | generated | {"own.md"} == named


def test_pages_tell_nothing_of_where_they_were_written():
    for path in [*PAGES, *DOCS.glob("*.py"), ROOT / "mkdocs.yml"]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?:^|[\s\"'`(=])/[A-Za-z]\w*/", text, re.MULTILINE), path  # an absolute path
        ways_out = re.findall(r"(?:\.\./)+[\w./-]*", text)
        assert all(way.endswith(".md") and way.count("../") == 1 for way in ways_out), (
            path
        )  # to another page, or nowhere


# The built site


class Requests(HTMLParser):
    """Collects what a browser would fetch by itself."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found += [given.get("src"), given.get("srcset")]
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href"))
        self.found.append(given.get("style"))


@pytest.mark.slow
def test_strict_build_and_no_request_to_other_places(tmp_path):
    for needed in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(needed, reason="make docs installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 50
    for path in pages:
        text = path.read_text(encoding="utf-8")
        requests = Requests()
        requests.feed(text)
        assert not [url for url in requests.found if url and re.search(r"(^|\(|\s)(https?:)?//", url)], path
        assert 'class="mermaid"' not in text  # the theme would fetch a script for it
        assert "arithmatex" not in text
        prose = re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.DOTALL)
        assert not re.search(r"\$(\\\w|[a-z])", prose), path  # TeX that was not read
        assert not re.search(r":(func|class|meth|mod):<code>", text), path
    for path in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path
    # found without a server: the index is a script, and workers are frames
    assert (tmp_path / "site" / "search" / "search_index.js").stat().st_size > 100_000
    assert "assets/iframe-worker.js" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
