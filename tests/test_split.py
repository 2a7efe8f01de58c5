"""What holds for every split: nothing leaks, every class is on both sides, order plays no part."""

import itertools
import random
from collections import Counter

import pytest

from meljax.data.files import Item
from meljax.data.split import conflicting_duplicates, leaks, split_items
from meljax.errors import UserError


def alone(items):
    """Digests of files that are all different."""
    return [f"digest {item.path}" for item in items]


def classes(counts):
    return [Item(f"{label}/{i}.wav", label) for label, n in counts.items() for i in range(n)]


def random_table(seed):
    """A table with groups across classes, byte-identical files and files without a group."""
    rng = random.Random(seed)
    names = [f"class{n}" for n in range(rng.randint(2, 8))]
    items = [Item(f"{name}/lone{i}.wav", name) for name in names for i in range(2)]
    digests = alone(items)
    for index in range(rng.randint(60, 300)):
        label = rng.choice(names)
        group = rng.choice(["", f"speaker{rng.randrange(30)}"])
        items.append(Item(f"{label}/{index}.wav", label, group))
        digests.append(
            rng.choice(digests[2 * len(names) :] or ["0"]) if rng.random() < 0.1 else f"{index}"
        )
    return items, digests


def sides_of(keys, sides):
    """Which sides each key is on."""
    found = {}
    for key, side in zip(keys, sides, strict=True):
        if key:
            found.setdefault(key, set()).add(side)
    return found


def test_ten_percent_of_the_voices_are_exactly_247_files():
    items = classes({f"spk{n:02}": 103 if n < 21 else 102 for n in range(24)})
    sides = split_items(items, alone(items), 0.1, seed=0)
    per_class = Counter(
        item.label for item, side in zip(items, sides, strict=True) if side == "val"
    )
    assert sides.count("val") == 247
    assert set(per_class.values()) == {10, 11}
    assert len(per_class) == 24


@pytest.mark.parametrize("seed", range(25))
def test_any_table_is_split_without_leaks_and_with_every_class_on_both_sides(seed):
    items, digests = random_table(seed)
    sides = split_items(items, digests, 0.2, seed)
    assert set(sides) == {"train", "val"}
    assert all(len(on) == 1 for on in sides_of([item.group for item in items], sides).values())
    assert all(len(on) == 1 for on in sides_of(digests, sides).values())
    assert all(len(on) == 2 for on in sides_of([item.label for item in items], sides).values())
    assert leaks(items, digests, sides) == []


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_table_plays_no_part(seed):
    items, digests = random_table(seed)
    decided = dict(zip(items, split_items(items, digests, 0.2, seed), strict=True))
    shuffled = list(zip(items, digests, strict=True))
    random.Random(seed).shuffle(shuffled)
    items, digests = zip(*shuffled, strict=True)
    assert dict(zip(items, split_items(items, digests, 0.2, seed), strict=True)) == decided


def test_the_seed_chooses_among_splits():
    items = classes({"a": 50, "b": 50})
    drawn = {tuple(split_items(items, alone(items), 0.1, seed)) for seed in range(5)}
    assert len(drawn) == 5
    again = split_items(items, alone(items), 0.1, seed=3)
    assert again == split_items(items, alone(items), 0.1, seed=3)


def test_a_split_stays_what_it_was_when_the_code_changes():
    items = classes({"a": 10, "b": 10})
    sides = split_items(items, alone(items), 0.2, seed=0)
    chosen = [item.path for item, side in zip(items, sides, strict=True) if side == "val"]
    assert chosen == ["a/3.wav", "a/7.wav", "b/4.wav", "b/7.wav"]


def test_every_class_has_a_file_on_each_side_however_small():
    items = classes({"large": 200, "small": 2, "tiny": 2})
    for fraction in (0.01, 0.5, 0.99):
        sides = split_items(items, alone(items), fraction, seed=1)
        assert all(len(on) == 2 for on in sides_of([i.label for i in items], sides).values())


def test_whole_speakers_come_near_the_wanted_fraction():
    items = [
        Item(f"{word}/{who}_{take}.wav", word, f"speaker{who}")
        for word in ("yes", "no", "stop")
        for who in range(40)
        for take in range(3)
    ]
    sides = split_items(items, alone(items), 0.1, seed=0)
    assert sides.count("val") == 36


@pytest.mark.parametrize("seed", range(20))
def test_copies_do_not_push_a_class_over_its_target(seed):
    items = classes({"a": 8, "b": 8})
    digests = [str(i // 2) for i in range(6)] + list("xyijklmnop")
    sides = split_items(items, digests, 0.125, seed)
    assert sides[:8].count("val") == sides[8:].count("val") == 1


@pytest.mark.parametrize("seed", range(5))
def test_where_every_speaker_is_too_large_the_smallest_is_taken(seed):
    items = classes({"b": 20})
    items += [Item(f"a/{i}.wav", "a", f"speaker{i // 20}") for i in range(66)]
    sides = split_items(items, alone(items), 0.05, seed)
    assert [i for i in range(66) if sides[20 + i] == "val"] == [60, 61, 62, 63, 64, 65]


def test_files_chained_by_group_and_digest_stay_together():
    items = [Item(f"a/{i}.wav", "a", f"g{i // 2}") for i in range(8)]
    items += classes({"b": 8})
    digests = alone(items)
    digests[1] = digests[2]  # g0 with g1
    digests[5] = digests[6]  # g2 with g3
    sides = split_items(items, digests, 0.25, seed=0)
    assert len(set(sides[:4])) == len(set(sides[4:8])) == 1
    assert sides[0] != sides[4]


def test_a_given_split_is_kept():
    items = [Item("1", "a", "", "train"), Item("2", "a", "", "val"), Item("3", "b", "", "test")]
    assert split_items(items, ["x", "x", "x"], 0.1, seed=0) == ["train", "val", "test"]
    assert split_items(items[::2], ["x", "x"], 0.1, seed=0) == ["train", "test"]


def test_given_test_files_neither_move_nor_hold_others():
    items = [*classes({"a": 10, "b": 10}), Item("test/a/1.wav", "a", "", "test")]
    digests = alone(items)
    digests[-1] = digests[0]
    sides = split_items(items, digests, 0.2, seed=0)
    assert sides[-1] == "test"
    assert Counter(sides) == {"train": 16, "val": 4, "test": 1}
    (warning,) = leaks(items, digests, sides)
    assert "2 byte-identical files" in warning
    assert "'a/0.wav'" in warning


def test_a_class_of_one_group_is_an_error_that_names_it():
    items = [Item(f"a/{i}.wav", "a", "only speaker") for i in range(5)] + classes({"b": 5})
    with pytest.raises(UserError, match=r"'a'.*5 files in 1 independent group"):
        split_items(items, alone(items), 0.1, seed=0)


def test_a_class_of_one_file_or_of_copies_is_an_error_that_names_it():
    items = classes({"a": 3, "b": 5})
    with pytest.raises(UserError, match=r"'a'.*3 files in 1 independent"):
        split_items(items, ["same"] * 3 + list("12345"), 0.1, seed=0)
    items = classes({"a": 1, "b": 5})
    with pytest.raises(UserError, match=r"'a'.*1 files in 1 independent"):
        split_items(items, alone(items), 0.1, seed=0)


def test_speakers_that_tie_classes_together_are_an_error():
    # Three classes, three speakers, each speaker in two classes: one of the classes always misses.
    pairs = {"x": "ab", "y": "bc", "z": "ca"}
    items = [Item(f"{c}/{who}.wav", c, who) for who, both in pairs.items() for c in both]
    with pytest.raises(UserError, match="cannot be on both sides"):
        split_items(items, alone(items), 0.3, seed=0)


def possible(items):
    """Whether any choice of groups puts every class on both sides, by trying all of them."""
    labels, groups = {item.label for item in items}, sorted({item.group for item in items})
    for chosen in itertools.product([False, True], repeat=len(groups)):
        val = {group for group, take in zip(groups, chosen, strict=True) if take}
        sides = [{i.label for i in items if (i.group in val) == side} for side in (False, True)]
        if sides == [labels, labels]:
            return True
    return False


# From 663 on: tables whose first choice closes the way for a class.
@pytest.mark.parametrize("seed", [*range(40), 663, 734, 959, 1551])
def test_small_tables_are_refused_only_where_no_split_exists(seed):
    rng = random.Random(seed)
    items = [
        Item(f"{group}/{take}.wav", f"class{rng.randrange(4)}", f"speaker{group}")
        for group in range(rng.randint(2, 6))
        for take in range(rng.randint(1, 4))
    ]
    if possible(items):
        sides = split_items(items, alone(items), 0.3, seed)
        assert all(len(on) == 2 for on in sides_of([i.label for i in items], sides).values())
    else:
        with pytest.raises(UserError, match="cannot be on both sides"):
            split_items(items, alone(items), 0.3, seed)


def test_leaks_of_a_given_split_are_counted_with_an_example():
    items = [
        Item("train/a/1.wav", "a", "ann", "train"),
        Item("val/a/2.wav", "a", "ann", "val"),
        Item("train/b/3.wav", "b", "bob", "train"),
        Item("test/b/4.wav", "b", "cid", "test"),
    ]
    sides = [item.split for item in items]
    groups, copies = leaks(items, ["1", "2", "3", "3"], sides)
    assert "1 of 3 groups" in groups
    assert "'ann' in train and val" in groups
    assert "2 byte-identical files" in copies
    assert "'test/b/4.wav' in test and 'train/b/3.wav' in train" in copies


def test_copies_with_different_labels_are_reported():
    items = [Item("b/2.wav", "b"), Item("a/1.wav", "a"), Item("a/3.wav", "a"), Item("a/4.wav", "a")]
    (report,) = conflicting_duplicates(items, ["x", "x", "y", "y"])
    assert report.endswith("'a/1.wav' ('a'), 'b/2.wav' ('b')")


def test_file_names_that_are_not_utf8_can_be_split():
    items = [Item(f"{label}/\udcff{i}.wav", label) for label in "ab" for i in range(4)]
    assert split_items(items, alone(items), 0.25, seed=0).count("val") == 2
