"""``landscape submit`` without a cluster: words, scripts, shares."""

import itertools
import json
import random
import subprocess
from pathlib import Path

import pytest
import standins

from landscape_cli.submit import Wish, shared_out

TOY = (
    *("schematic_loss_change", "name=toy", "family=test_runner.Toy", "plot.formats=[png]", "plot.dpi=50"),
    "profile=smoke",
)
FOUR = (*TOY, "+grid.x=[1,2,3,4]")


@pytest.fixture
def cluster(isolated, monkeypatch):
    return standins.install(isolated / "bin", monkeypatch)


@pytest.fixture
def folders(tmp_path):
    """The submissions so far."""
    return lambda: sorted((tmp_path / "outputs" / "jobs").glob("*"))


def keys_of(folder: Path) -> list[list[str]]:
    return [
        [key for _, _, key, _ in json.loads(path.read_text())["points"]] for path in sorted(folder.glob("job_*.json"))
    ]


class TestWords:
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ([*FOUR], "jobs is not given; usage: landscape submit EXPERIMENT… jobs=N"),
            ([*FOUR, "jobs=0"], "jobs: '0'; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs=-1"], "jobs: '-1'; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs=two"], "jobs: 'two'; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs="], "jobs: ''; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs=5"], "jobs: 5; only 4 points are to be measured; allowed: 4 or fewer"),
            ([*FOUR, "jobs=1", "array_parallelism=0"], "array_parallelism: '0'; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs=1", "warning=x"], "warning: 'x'; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs=1", "time=0"], "time: '0'; allowed: a whole number"),
            ([*FOUR, "jobs=1", "time=1:00"], "time: '1:00'; allowed: a whole number"),
            ([*FOUR, "jobs=1", "partition="], "partition: ''; allowed: a name"),
            ([*FOUR, "jobs=1", "gpus_per_node=2"], "gpus_per_node: 2; a job uses one device: allowed 0 or 1"),
            ([*FOUR, "jobs=1", "partion=gpu"], "unknown option partion; did you mean 'partition'"),
            ([*FOUR, "job=1"], "unknown option job; did you mean 'jobs'"),
            ([*FOUR, "jobs=1", "seeed=3"], "unknown key 'seeed'; did you mean 'seed'"),
            (["nosuch", "jobs=1"], "there is no experiment 'nosuch'"),
            (["fc_mnits", "jobs=1"], "there is no experiment 'fc_mnits'; did you mean 'fc_mnist'"),
            (["jobs=1"], "no experiment is named; usage:"),
            ([*FOUR, "jobs=1", "shard.count=2"], "shard.count=2: jobs are given their points"),
            ([*FOUR, "jobs=1", "hydra/launcher=slurm"], "hydra/launcher=slurm: jobs are given their points"),
            ([*FOUR, "jobs=1", "experiment=quickstart"], "experiment=quickstart: jobs are given their points"),
            ([*FOUR, "jobs=1", "family=test_runner.Nosuch"], "family: there is no class 'test_runner.Nosuch'"),
            ([*FOUR, "jobs=²"], "jobs: '²'; allowed: a whole number, 1 or more"),
            ([*FOUR, "jobs=1", "time=1", "warning=60"], "warning"),
            ([*FOUR, "jobs=1", "slurm.array=0-3"], "slurm.array"),
        ],
    )
    def test_bad_ones_are_one_line(self, cluster, landscape, folders, words, text):
        landscape("submit", *words).assert_refused(2, text)
        assert cluster.words("sbatch") == []
        assert folders() == []

    def test_flags_are_refused(self, landscape):
        landscape("submit", *FOUR, "jobs=1", "--nosuch").assert_refused(2, "--nosuch")

    def test_without_slurm(self, landscape, isolated, monkeypatch, folders):
        standins.hide(monkeypatch, isolated / "empty")
        landscape("submit", *FOUR, "jobs=1").assert_refused(2, "no Slurm here: there is no sbatch on the PATH")
        assert folders() == []

    def test_what_slurm_refuses(self, cluster, landscape, folders):
        cluster.says("sbatch", err="sbatch: error: invalid partition specified: x\nsbatch: error: Batch job\n", code=1)
        finished = landscape("submit", *FOUR, "jobs=1", "partition=x")
        finished.assert_refused(2, "Slurm refused the jobs: error: invalid partition specified: x error: Batch job")
        assert folders() == []

    def test_missing_data(self, cluster, landscape, folders):
        finished = landscape("submit", "datasets", "jobs=1", "data.download=false", "profile=quick")
        assert finished.code == 3
        assert finished.lines[-1].startswith("landscape: data set ")
        assert folders() == []


class TestScript:
    def test_text(self, cluster, landscape, folders, tmp_path, monkeypatch):
        monkeypatch.setenv("LANDSCAPE_DATA", "/a b/it's")
        options = ("partition=gpu", "time=4", "cpus_per_task=3", "mem_gb=8", "gpus_per_node=1", "account=me")
        more = ("slurm.mail_type=END", "slurm.exclusive=true", "array_parallelism=2")
        finished = landscape("submit", *FOUR, "jobs=3", *options, *more)
        assert (finished.code, finished.err) == (0, "")
        (folder,) = folders()
        assert cluster.script == (folder / "job.sh").read_text()
        lines = cluster.script.splitlines()
        assert lines[0] == "#!/bin/bash"
        assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")] == [
            *("--job-name=landscape", "--array=0-2%2", f'--output="{folder}/job_%a.log"', "--open-mode=append"),
            *("--requeue", "--signal=B:USR2@60", f'--chdir="{Path.cwd()}"', "--partition=gpu", "--time=4"),
            *("--cpus-per-task=3", "--mem=8G", "--gpus-per-node=1", "--account=me", "--mail-type=END", "--exclusive"),
        ]
        assert f"export LANDSCAPE_OUTPUTS={tmp_path}/outputs" in lines
        shown = subprocess.run(
            ["bash", "-c", "\n".join(lines[1:-1]) + '\necho "$LANDSCAPE_DATA"'], capture_output=True, text=True
        )
        assert shown.stdout == "/a b/it's\n"
        assert lines[-1].endswith(f'-P -m landscape_cli.cli work {folder} "$SLURM_ARRAY_TASK_ID"')
        assert subprocess.run(["bash", "-n", folder / "job.sh"]).returncode == 0

    @pytest.mark.parametrize(
        ("words", "lead"), [([], 120), (["time=1"], 15), (["time=600"], 120), (["time=60", "warning=7"], 7)]
    )
    def test_warning(self, cluster, landscape, words, lead):
        assert landscape("submit", *FOUR, "jobs=1", *words).code == 0
        assert f"#SBATCH --signal=B:USR2@{lead}\n" in cluster.script

    def test_no_gpu(self, cluster, landscape):
        assert landscape("submit", *FOUR, "jobs=1", "gpus_per_node=0").code == 0
        assert "gpus" not in cluster.script

    def test_of_a_federation(self, cluster, landscape, folders):
        cluster.says("sbatch", out="4711;other\n")
        assert "4711_0: 4 points" in landscape("submit", *FOUR, "jobs=1").out
        assert (folders()[0] / "array").read_text() == "4711"


class TestShares:
    @staticmethod
    def wishes(costs):
        return [Wish("a", number, "f", float(cost)) for number, cost in enumerate(costs)]

    @staticmethod
    def longest(shares):
        return max(sum(wish.seconds for wish in share) for share in shares)

    def test_beside_brute_force(self):
        """The longest first is never worse than 4/3 − 1/(3m) times the best (Graham, 1969)."""
        draw = random.Random(1)
        for _ in range(60):
            count = draw.randint(1, 3)
            wishes = self.wishes([draw.randint(1, 30) for _ in range(draw.randint(count, 7))])
            shares = shared_out(wishes, count)
            assert sorted(w.item for share in shares for w in share) == list(range(len(wishes)))
            assert all(shares)
            best = min(
                max(sum(w.seconds for w, n in zip(wishes, to, strict=True) if n == m) for m in range(count))
                for to in itertools.product(range(count), repeat=len(wishes))
            )
            assert self.longest(shares) <= best * (4 / 3 - 1 / (3 * count)) + 1e-9

    def test_is_the_same_again_and_keeps_the_order(self):
        wishes = self.wishes([random.Random(2).choice([1, 1, 2, 5]) for _ in range(50)])
        shares = shared_out(wishes, 7)
        assert shares == shared_out(wishes, 7)
        assert all([w.item for w in share] == sorted(w.item for w in share) for share in shares)

    def test_of_equal_points(self):
        assert [len(share) for share in shared_out(self.wishes([1] * 10), 4)] == [3, 3, 2, 2]


class TestPoints:
    def test_every_one_in_one_job(self, cluster, landscape, folders):
        finished = landscape("submit", *FOUR, "jobs=3")
        assert finished.out.startswith("schematic_loss_change: 4 points: 4 to measure\n")
        (folder,) = folders()
        keys = [key for share in keys_of(folder) for key in share]
        assert len(keys) == len(set(keys)) == 4
        assert [len(share) for share in keys_of(folder)] == [2, 1, 1]

    def test_shared_by_two_experiments(self, cluster, landscape, folders, small):
        same = ("dataset=digits", "dataset.max_size=120", "dataset.train_size=null", "measure.smoothing=0.9")
        finished = landscape("submit", "quickstart", "fc_mnist", *small, *same, "jobs=2")
        assert finished.code == 0, finished.err
        assert "quickstart: 4 points: 4 to measure" in finished.out
        assert "fc_mnist: 4 points: 4 of an experiment named before, 0 to measure" in finished.out
        assert len({key for share in keys_of(folders()[0]) for key in share}) == 4

    def test_stored_running_and_waiting_ones_are_left_out(self, cluster, landscape, folders, tmp_path):
        run = ("run", f"experiment={TOY[0]}", *TOY[1:])
        assert landscape(*run, "+grid.x=[1]").code == 0
        assert landscape("submit", *TOY, "+grid.x=[1,2]", "jobs=1").code == 0
        assert len(keys_of(folders()[0])[0]) == 1
        cluster.says("squeue", out="4711_0\n99_0\n")
        finished = landscape("submit", *TOY, "+grid.x=[1,2,3]", "jobs=1")
        assert "3 points: 1 stored, 1 in the queue, 1 to measure" in finished.out
        cluster.says("squeue")
        assert "2 points: 1 stored, 1 to measure" in landscape("submit", *TOY, "+grid.x=[1,2]", "jobs=1").out

    def test_nothing_to_do(self, cluster, landscape, folders):
        assert landscape("run", f"experiment={TOY[0]}", *TOY[1:], "+grid.x=[1]").code == 0
        finished = landscape("submit", *TOY, "+grid.x=[1]", "jobs=3")
        assert (finished.code, finished.out.splitlines()[-1]) == (0, "nothing to submit")
        assert cluster.words("sbatch") == []
        assert folders() == []

    def test_a_queue_that_does_not_answer(self, cluster, landscape):
        assert landscape("submit", *FOUR, "jobs=1").code == 0
        cluster.says("squeue", err="slurm_load_jobs error: Unable to contact slurm controller", code=1)
        assert "4 points: 4 to measure" in landscape("submit", *FOUR, "jobs=1").out

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("job_0.json", b"{"),
            ("job_0.json", b"[]"),
            ("job_0.json", b"\xff"),
            ("job_0.json", None),
            ("array", b""),
            ("array", None),
            ("array", b"\xff\n"),
        ],
    )
    def test_damaged_submissions_are_passed_over(self, cluster, landscape, folders, file, content):
        assert landscape("submit", *FOUR, "jobs=1").code == 0
        path = folders()[0] / file
        path.write_bytes(content) if content is not None else path.unlink()
        cluster.says("squeue", out="4711_0\n")
        finished = landscape("submit", *FOUR, "jobs=1")
        assert finished.code == 0, finished.err
        assert "4 to measure" in finished.out
