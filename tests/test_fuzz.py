"""A small share of the fuzzing of every reader, and the inputs that once went wrong."""

import sys

import pytest
from fuzzing import campaign as campaign_lib
from fuzzing.campaign import campaign
from fuzzing.child import Job
from fuzzing.readers import FILES, READERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")

KEPT = [("wav", 20261128, 905), ("caf", 20261128, 7255), ("caf", 77001, 1288)]
KEPT += [("tfds-info", 77001, 9761), ("metadata-csv", 77001, 3984), ("run-calibration", 28, 4067)]
KEPT += [("checkpoint-meta", 12, 1257), ("checkpoint-meta", 12, 3024)]
"""(reader, seed, index) of inputs that crashed, raised or hung."""


def problems(outcomes):
    return [
        f"{reader} {each.index}: {each.what}"
        for reader, outcome in outcomes.items()
        for each in outcome.problems
    ]


@pytest.mark.parametrize("readers", [FILES, READERS.keys() - FILES], ids=["files", "others"])
def test_damaged_files_are_read_or_refused_by_name(readers):
    assert not problems(campaign([Job(reader, 0, 0, 25) for reader in sorted(readers)]))


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS)
def test_ten_thousand_damaged_files_are_read_or_refused_by_name(reader):
    assert not problems(campaign([Job(reader, 0, 0, 10_000)]))


def test_inputs_that_went_wrong_do_not():
    assert not problems(campaign([Job(*place, index, index + 1) for *place, index in KEPT]))


FRAIL = """
import json, os, sys
out = os.fdopen(int(sys.argv[1]), "w", buffering=1)
for number, text in enumerate(sys.argv[2:]):
    reader, seed, first, last = json.loads(text)
    for index in range(first, last):
        print(json.dumps({"job": number, "begin": index}), file=out)
        if index in (1, 4):
            os.abort()
        print(json.dumps({"job": number, "problem": "", "as": "read", "peak": 0}), file=out)
"""


def test_inputs_after_one_that_ends_the_process_are_read(tmp_path, monkeypatch):
    (tmp_path / "frail.py").write_text(FRAIL)
    monkeypatch.setattr(campaign_lib, "CHILD", (str(tmp_path / "frail.py"),))
    found = campaign([Job("png", 0, 0, 3), Job("wav", 0, 2, 7)])
    assert [each.index for each in found["png"].problems] == [1]
    assert [each.index for each in found["wav"].problems] == [4]
    assert found["png"].ended == {"read": 2, "died": 1}
    assert found["wav"].ended == {"read": 4, "died": 1}
