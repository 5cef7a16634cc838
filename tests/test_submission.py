"""What a job must find unchanged: the code, the configuration; and what points are thought to cost."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import landscape_cli.submission as module
from landscape_cli.composing import load
from landscape_cli.cost import START, UNKNOWN, duration, estimated_seconds
from landscape_cli.errors import BadInput
from landscape_cli.plan import make_plan
from landscape_cli.submission import Submission, check_unchanged, code_digest, job_name, read_submission

QUICK = ("experiment=quickstart", "profile=smoke")


@pytest.fixture
def submitted(tmp_path):
    path = tmp_path / "submission.json"
    Submission.of({"quickstart": load(QUICK)}).write(path)
    return read_submission(path)


class TestUnchanged:
    def test_nothing_has_changed(self, submitted, capsys):
        check_unchanged(submitted, "quickstart", load(QUICK))
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("override", ["device=cpu", "threads=3", "debug=true", "allow_changes=true"])
    def test_how_a_job_runs_is_free(self, submitted, override):
        check_unchanged(submitted, "quickstart", load([*QUICK, override]))

    @pytest.mark.parametrize(
        ("override", "text"),
        [
            ("seeds=7", "seeds was 2, is 7"),
            ("training.learning_rate=0.5", "training.learning_rate was 0.001, is 0.5"),
            ("output_dir=elsewhere", "is 'elsewhere'"),
            ("data.roots=[elsewhere]", "data.roots was None, is ['elsewhere']"),
        ],
    )
    def test_another_configuration_is_refused_by_key(self, submitted, override, text):
        with pytest.raises(BadInput, match="the configuration has changed") as refused:
            check_unchanged(submitted, "quickstart", load([*QUICK, override]))
        assert text in str(refused.value)
        assert "allow_changes=true" in str(refused.value)
        assert "the code" not in str(refused.value)

    def test_a_change_of_the_surroundings_is_seen(self, submitted, monkeypatch):
        monkeypatch.setenv("LANDSCAPE_OUTPUTS", "/somewhere/else")
        with pytest.raises(BadInput, match=r"output_dir was .* is '/somewhere/else'"):
            check_unchanged(submitted, "quickstart", load(QUICK))

    def test_it_can_be_allowed_and_is_said(self, submitted, capsys):
        check_unchanged(submitted, "quickstart", load([*QUICK, "seeds=7", "allow_changes=true"]))
        assert (
            "allowed: the configuration has changed since it was submitted: seeds was 2, is 7"
            in capsys.readouterr().out
        )

    def test_a_job_that_was_not_submitted(self, submitted):
        with pytest.raises(BadInput, match="not among what was submitted"):
            check_unchanged(submitted, "fc_mnist", load(QUICK))

    @pytest.mark.parametrize("change", ["edit", "add", "remove"])
    @pytest.mark.parametrize("file", ["landscape_cli/rng.py", "experiments/grid.py", "conf/model/mlp.yaml"])
    def test_another_code_is_refused_by_file(self, tmp_path, monkeypatch, file, change):
        top = Path(module.__file__).resolve().parents[1]
        for name in ("landscape_cli", "experiments", "conf"):
            shutil.copytree(top / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(module, "__file__", str(tmp_path / "landscape_cli" / "submission.py"))
        monkeypatch.setattr(module, "config_folder", lambda: tmp_path / "conf")
        config = load(QUICK)
        submission, before = Submission.of({"quickstart": config}), code_digest(config.family)
        changed = tmp_path / file
        if change == "edit":
            changed.write_text(changed.read_text() + "\n")
        elif change == "remove":
            changed.unlink()
        else:
            file = str(Path(file).with_name("new" + changed.suffix))
            (tmp_path / file).write_text("")
        with pytest.raises(BadInput, match="the code has changed since it was submitted") as refused:
            check_unchanged(submission, "quickstart", config)
        assert file in str(refused.value)
        assert "the configuration" not in str(refused.value)
        assert code_digest(config.family) != before

    def test_a_module_of_ones_own_counts_too(self, tmp_path, monkeypatch):
        source = tmp_path / "my_family.py"
        source.write_text(
            "from experiments.chapter1.fully_connected import FullyConnected\nclass Mine(FullyConnected):\n    pass\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        config = load([*QUICK, "family=my_family.Mine"])
        submission = Submission.of({"mine": config, "quickstart": load(QUICK)})
        check_unchanged(submission, "mine", config)
        source.write_text(source.read_text() + "# changed\n")
        check_unchanged(submission, "quickstart", load(QUICK))  # none of its own
        with pytest.raises(BadInput, match="my_family"):
            check_unchanged(submission, "mine", config)
        sys.modules.pop("my_family", None)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"commit": 1}'])
    def test_a_damaged_record(self, tmp_path, text):
        path = tmp_path / "submission.json"
        path.write_text(text)
        with pytest.raises(BadInput, match=r"submission\.json: not a record of a submission .*submit again"):
            read_submission(path)

    def test_a_record_names_commit_command_and_hash(self, submitted):
        assert submitted.command == "landscape (a test)"
        assert set(submitted.hashes) == {"quickstart"}
        json.dumps(submitted.configs)


def test_a_job_is_named_by_what_makes_its_numbers():
    words = ["experiment=fc_mnist", "seeds=2", "device=cuda:1", "submission=/a/b.json", "threads=1"]
    assert job_name(words) == "experiment=fc_mnist seeds=2"


class TestCost:
    def test_a_larger_network_is_thought_to_take_longer(self):
        plan = make_plan(load(["experiment=quickstart", "profile=smoke", "grid.hidden_size=[4,2000]"]))
        seconds = {
            item.point.coordinates["hidden_size"]: s
            for item, s in zip(plan.located, estimated_seconds(plan, plan.located), strict=True)
        }
        assert seconds[2000] > 100 * (seconds[4] - START)
        assert all(s > START for s in seconds.values())

    def test_stored_points_say_how_fast_it_goes(self, measured, small):
        overrides = ["experiment=quickstart", *small, f"output_dir={measured}"]
        plan = make_plan(load(overrides))
        before = estimated_seconds(plan, plan.located)
        for item in plan.located:
            path = plan.store.folder(plan.family, item.key) / "point.json"
            document = json.loads(path.read_text())
            document["provenance"]["seconds"] = 1000 * (before[item.position] - START)
            path.write_text(json.dumps(document))
        after = estimated_seconds(plan, plan.located)
        for new, old in zip(after, before, strict=True):
            assert new - START == pytest.approx(1000 * (old - START), rel=1e-6)

    def test_nothing_is_known(self):
        plan = make_plan(load(["experiment=schematic_loss_change"]))
        assert estimated_seconds(plan, plan.located) == [UNKNOWN]

    def test_points_of_a_kind_take_what_others_took(self, landscape, tmp_path):
        words = ["experiment=theorems", "profile=smoke", f"output_dir={tmp_path / 'outputs'}"]
        plan = make_plan(load(words))
        assert set(estimated_seconds(plan, plan.located)) == {UNKNOWN}
        folder = plan.store.folder(plan.family, plan.located[0].key)
        folder.mkdir(parents=True)
        (folder / "point.json").write_text(json.dumps({"provenance": {"seconds": 42.0}}))
        assert set(estimated_seconds(plan, plan.located[1:])) == {START + 42.0}

    @pytest.mark.parametrize(("seconds", "text"), [(3, "3 s"), (90, "1.5 min"), (5400, "1.5 h")])
    def test_durations(self, seconds, text):
        assert duration(seconds) == text


def test_a_submission_is_read_as_it_was_written(tmp_path):
    written = Submission.of({"quickstart": load(QUICK)})
    written.write(tmp_path / "s.json")
    assert read_submission(tmp_path / "s.json") == replace(written)
