"""Claims: one owner at a time, the living keep theirs, the dead and the silent lose them."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from landscape_cli import claims as module
from landscape_cli.claims import Claims, Owner, clear_drafts, draft_name, myself

KEY = "0123abcd"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / ".claims"


@pytest.fixture
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def forge(folder, owner, age=0.0):
    """Put another process's claim there."""
    path = folder / KEY / ("f" * 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(owner)) if isinstance(owner, Owner) else owner)
    os.utime(path, (time.time() - age,) * 2)
    return path


ELSEWHERE = Owner("elsewhere", "elsewhere boot pid:[1]", 1, "1")


class TestOwn:
    def test_taken_once_and_given_back(self, folder):
        mine, other = Claims(folder), Claims(folder)
        assert mine.take(KEY)
        assert not other.take(KEY)
        assert other.owner(KEY) == myself()
        assert other.living() == {KEY: myself()}
        mine.release(KEY)
        assert other.owner(KEY) is None
        assert other.take(KEY)
        other.close()
        assert not folder.exists()

    def test_release_leaves_what_another_one_has(self, folder):
        mine = Claims(folder)
        assert mine.take(KEY)
        (own,) = (folder / KEY).iterdir()
        own.unlink()  # as one does who takes it for dead
        path = forge(folder, ELSEWHERE)
        mine.release(KEY)
        mine.close()
        assert path.exists()

    def test_close_gives_all_back(self, folder):
        mine = Claims(folder)
        assert all(mine.take(f"{KEY}{number}") for number in range(3))
        mine.close()
        assert not folder.exists()

    def test_nothing_is_there(self, folder):
        assert Claims(folder).living() == {}
        assert Claims(folder).owner(KEY) is None
        Claims(folder).release(KEY)
        Claims(folder).close()
        clear_drafts(folder)
        assert not folder.exists()


class TestTakeover:
    def test_of_a_dead_process_at_once(self, folder, ended):
        forge(folder, replace(myself(), pid=ended))
        claims = Claims(folder)
        assert claims.owner(KEY) is None
        assert claims.take(KEY)
        assert [path.name != "f" * 32 for path in (folder / KEY).iterdir()] == [True]
        claims.close()

    def test_of_a_number_that_is_used_again(self, folder):
        """The process runs, but it started at another time: it is not the owner."""
        forge(folder, replace(myself(), started="1"))
        assert Claims(folder).take(KEY)

    def test_not_of_a_living_process_however_silent(self, folder):
        forge(folder, myself(), age=1e6)
        assert not Claims(folder, stale=0.1).take(KEY)

    def test_of_another_machine_only_after_a_while(self, folder):
        path = forge(folder, ELSEWHERE)
        claims = Claims(folder, stale=5.0)
        assert not claims.take(KEY)
        assert str(claims.owner(KEY)) == "process 1 on elsewhere"
        os.utime(path, (time.time() - 4,) * 2)
        assert not claims.take(KEY)
        os.utime(path, (time.time() - 6,) * 2)
        assert claims.owner(KEY) is None
        assert claims.take(KEY)

    @pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"host": 3}'])
    def test_of_a_damaged_claim_only_after_a_while(self, folder, damage):
        path = forge(folder, damage)
        claims = Claims(folder, stale=5.0)
        assert not claims.take(KEY)
        assert "unknown machine" in str(claims.owner(KEY))
        os.utime(path, (time.time() - 6,) * 2)
        assert claims.take(KEY)

    def test_of_an_empty_folder_and_of_a_file(self, folder):
        (folder / KEY).mkdir(parents=True)
        (folder / "file").write_text("none of ours")
        claims = Claims(folder)
        assert claims.take(KEY)
        assert claims.take("file")
        claims.close()
        assert not folder.exists()

    def test_not_while_there_are_signs_of_life(self, folder, monkeypatch):
        """Seen from another machine, where process numbers mean nothing."""
        mine = Claims(folder, beat=0.05)
        assert mine.take(KEY)
        monkeypatch.setattr(module, "myself", lambda: ELSEWHERE)
        other = Claims(folder, stale=0.5)
        for _ in range(8):
            time.sleep(0.1)
            assert not other.take(KEY)
        mine._done.set()  # it dies
        time.sleep(0.7)
        assert other.take(KEY)


class TestRaces:
    def test_who_comes_while_another_one_looks_is_not_buried(self, folder, monkeypatch):
        """The owner goes and another one comes while a third looks for owners who are dead."""
        first, second, third = Claims(folder), Claims(folder), Claims(folder)
        assert first.take(KEY)
        plain, looks = module._names, []

        def names(path):
            found = plain(path)
            if path == folder / KEY and not looks:
                looks.append(path)
                first.release(KEY)
                found = plain(path)
                assert second.take(KEY)
            return found

        monkeypatch.setattr(module, "_names", names)
        assert not third.take(KEY)
        assert looks

    def test_of_many_threads_one_wins(self, folder):
        """Each takes, looks that it is alone, and gives back: 8 at once, on one key."""
        inside, most, rounds, lock = [], [0], [0], threading.Lock()

        def work():
            claims = Claims(folder)
            end = time.monotonic() + 0.8
            while time.monotonic() < end:
                if claims.take(KEY):
                    with lock:
                        inside.append(1)
                        most[0] = max(most[0], len(inside))
                        rounds[0] += 1
                    time.sleep(0.001)
                    with lock:
                        inside.pop()
                    claims.release(KEY)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == [1]
        assert rounds[0] > 8

    def test_a_folder_that_others_leave_is_made_again(self, folder, monkeypatch):
        """Another process ends, and removes the empty folder, just when this one has made it."""
        plain, left = os.mkdir, [folder]

        def mkdir(path, *mode):
            plain(path, *mode)
            if left and path == left[0]:
                os.rmdir(left.pop())

        monkeypatch.setattr("os.mkdir", mkdir)
        assert Claims(folder).take(KEY)


class TestDrafts:
    def test_of_dead_processes_are_cleared(self, folder, ended, monkeypatch):
        folder.mkdir()
        mine = draft_name()
        dead = mine.replace(str(os.getpid()), str(ended))
        for name in (mine, dead, ".draft-", ".draft-x@y", "else"):
            (folder / name).mkdir()
        clear_drafts(folder)
        assert {path.name for path in folder.iterdir()} == {mine, ".draft-", ".draft-x@y", "else"}

    def test_of_another_container_of_the_same_name_stay(self, folder, ended, monkeypatch):
        """A claim tells boots and process namespaces apart; a draft has to, too: its writer may be alive."""
        folder.mkdir()
        monkeypatch.setattr("landscape_cli.claims.os.readlink", lambda _: "pid:[another]")
        module._hashed.cache_clear()
        monkeypatch.setattr("landscape_cli.claims.os.getpid", lambda: ended)
        draft = folder / draft_name()
        monkeypatch.undo()
        module._hashed.cache_clear()
        draft.mkdir()
        clear_drafts(folder)
        assert draft.exists()
