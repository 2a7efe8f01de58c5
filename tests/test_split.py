"""Properties of every split: no leaks, every class in train and val, independent of order."""

import dataclasses
import itertools
import math
import random
import re
from collections import Counter

import pytest

from meljax.config import DataConfig
from meljax.data.manifest import Item
from meljax.data.split import (
    classes_without_val,
    conflicting_duplicates,
    leaks,
    small_classes,
    split_items,
    unused_split_folders,
)
from meljax.util.errors import UserError


def split(items, digests, val_fraction, seed, **keys):
    """Returns the split of each item."""
    data = DataConfig(val_fraction=val_fraction, **keys)
    return split_items(items, digests, data, seed).splits


def alone(items):
    """Returns different digests for all items."""
    return [f"digest {item.path}" for item in items]


def classes(counts):
    return [Item(f"{label}/{i}.wav", label) for label, n in counts.items() for i in range(n)]


def random_items(seed):
    """Returns items with groups across classes, byte-identical files and files without a group."""
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


def splits_of(keys, splits):
    """Returns the splits that each key is in."""
    found = {}
    for key, split in zip(keys, splits, strict=True):
        if key:
            found.setdefault(key, set()).add(split)
    return found


def test_ten_percent_of_2469_items_are_247():
    items = classes({f"spk{n:02}": 103 if n < 21 else 102 for n in range(24)})
    splits = split(items, alone(items), 0.1, seed=0)
    per_class = Counter(
        item.label for item, split in zip(items, splits, strict=True) if split == "val"
    )
    assert splits.count("val") == 247
    assert set(per_class.values()) == {10, 11}
    assert len(per_class) == 24


def held_out(counts, fraction, seed=0):
    """Returns how many files of each class are in val."""
    items = classes(counts)
    splits = split(items, alone(items), fraction, seed)
    return Counter(item.label for item, split in zip(items, splits, strict=True) if split == "val")


def test_rounding_gives_the_remaining_files_to_the_largest_remainders():
    # Shares of 1.9, 1.1, 1.6 and 1.4: six in all.
    assert held_out({"a": 19, "b": 11, "c": 16, "d": 14}, 0.1) == {"a": 2, "b": 1, "c": 2, "d": 1}
    assert held_out({"a": 11, "b": 19, "c": 14, "d": 16}, 0.1) == {"a": 1, "b": 2, "c": 1, "d": 2}
    assert held_out({f"{n:02}": 19 for n in range(24)}, 0.1).total() == 46


@pytest.mark.parametrize("seed", range(20))
def test_the_total_over_many_classes_is_rounded_once(seed):
    rng = random.Random(seed)
    fraction = rng.choice([0.05, 0.1, 0.125, 0.25, 0.4])
    counts = {f"{n:03}": rng.randint(2, 90) for n in range(rng.randint(2, 80))}
    held = held_out(counts, fraction, seed)
    shares = {label: fraction * count for label, count in counts.items()}
    least = {label: max(1, math.floor(share)) for label, share in shares.items()}
    assert held.total() == max(round(fraction * sum(counts.values())), sum(least.values()))
    assert all(held[label] - least[label] in (0, 1) for label in counts)
    up = [share % 1 for label, share in shares.items() if held[label] > least[label]]
    down = [share % 1 for label, share in shares.items() if held[label] == least[label] < share]
    assert min(up, default=1) >= max(down, default=0)


@pytest.mark.parametrize("seed", range(25))
def test_random_items_are_split_without_leaks_and_with_every_class_in_both_splits(seed):
    items, digests = random_items(seed)
    splits = split(items, digests, 0.2, seed)
    assert set(splits) == {"train", "val"}
    assert all(len(on) == 1 for on in splits_of([item.group for item in items], splits).values())
    assert all(len(on) == 1 for on in splits_of(digests, splits).values())
    assert all(len(on) == 2 for on in splits_of([item.label for item in items], splits).values())
    assert leaks(items, digests, splits) == []


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_items_does_not_matter(seed):
    items, digests = random_items(seed)
    decided = dict(zip(items, split(items, digests, 0.2, seed), strict=True))
    shuffled = list(zip(items, digests, strict=True))
    random.Random(seed).shuffle(shuffled)
    items, digests = zip(*shuffled, strict=True)
    assert dict(zip(items, split(items, digests, 0.2, seed), strict=True)) == decided


def test_the_seed_selects_the_split():
    items = classes({"a": 50, "b": 50})
    drawn = {tuple(split(items, alone(items), 0.1, seed)) for seed in range(5)}
    assert len(drawn) == 5
    again = split(items, alone(items), 0.1, seed=3)
    assert again == split(items, alone(items), 0.1, seed=3)


def test_a_known_split_is_reproduced():
    items = classes({"a": 10, "b": 10})
    splits = split(items, alone(items), 0.2, seed=0)
    chosen = [item.path for item, split in zip(items, splits, strict=True) if split == "val"]
    assert chosen == ["a/3.wav", "a/7.wav", "b/4.wav", "b/7.wav"]


def test_every_class_has_a_file_in_both_splits_however_small():
    items = classes({"large": 200, "small": 2, "tiny": 2})
    for fraction in (0.01, 0.5, 0.99):
        splits = split(items, alone(items), fraction, seed=1)
        assert all(len(on) == 2 for on in splits_of([i.label for i in items], splits).values())


def test_whole_speakers_come_near_the_requested_fraction():
    items = [
        Item(f"{word}/{who}_{take}.wav", word, f"speaker{who}")
        for word in ("yes", "no", "stop")
        for who in range(40)
        for take in range(3)
    ]
    splits = split(items, alone(items), 0.1, seed=0)
    assert splits.count("val") == 36


@pytest.mark.parametrize("seed", range(20))
def test_copies_do_not_push_a_class_over_its_target(seed):
    items = classes({"a": 8, "b": 8})
    digests = [str(i // 2) for i in range(6)] + list("xyijklmnop")
    splits = split(items, digests, 0.125, seed)
    assert splits[:8].count("val") == splits[8:].count("val") == 1


@pytest.mark.parametrize("seed", range(5))
def test_if_every_speaker_is_too_large_the_smallest_is_chosen(seed):
    items = classes({"b": 20})
    items += [Item(f"a/{i}.wav", "a", f"speaker{i // 20}") for i in range(66)]
    splits = split(items, alone(items), 0.05, seed)
    assert [i for i in range(66) if splits[20 + i] == "val"] == [60, 61, 62, 63, 64, 65]


def test_files_connected_by_groups_and_digests_stay_together():
    items = [Item(f"a/{i}.wav", "a", f"g{i // 2}") for i in range(8)]
    items += classes({"b": 8})
    digests = alone(items)
    digests[1] = digests[2]  # g0 with g1
    digests[5] = digests[6]  # g2 with g3
    splits = split(items, digests, 0.25, seed=0)
    assert len(set(splits[:4])) == len(set(splits[4:8])) == 1
    assert splits[0] != splits[4]


def test_a_given_split_is_kept():
    items = [Item("1", "a", "", "train"), Item("2", "a", "", "val"), Item("3", "b", "", "test")]
    assert split(items, ["x", "x", "x"], 0.1, seed=0) == ["train", "val", "test"]
    assert split(items[::2], ["x", "x"], 0.1, seed=0) == ["train", "test"]


def test_given_test_files_stay_and_do_not_hold_their_copies():
    items = [*classes({"a": 10, "b": 10}), Item("test/a/1.wav", "a", "", "test")]
    digests = alone(items)
    digests[-1] = digests[0]
    splits = split(items, digests, 0.2, seed=0)
    assert splits[-1] == "test"
    assert Counter(splits) == {"train": 16, "val": 4, "test": 1}
    (warning,) = leaks(items, digests, splits)
    assert "2 byte-identical files" in warning
    assert "'a/0.wav'" in warning


def test_a_class_with_one_group_one_file_or_only_copies_is_small():
    items = [Item(f"a/{i}.wav", "a", "only speaker") for i in range(5)] + classes({"b": 5})
    assert small_classes(items, alone(items)) == {"a": (5, 1)}
    items = classes({"a": 3, "b": 5, "c": 1, "d": 2})
    digests = ["same"] * 3 + list("12345678")
    assert small_classes(items, digests) == {"a": (3, 1), "c": (1, 1)}
    given = [dataclasses.replace(item, split="val") for item in items[:1]] + items[1:]
    assert small_classes(given, digests) == {}


@pytest.mark.parametrize("seed", range(5))
def test_small_classes_stay_in_train(seed):
    items = classes({"a": 1, "b": 30, "c": 1})
    items += [Item(f"d/{i}.wav", "d", "alone") for i in range(9)]
    found = split_items(items, alone(items), DataConfig(), seed)
    assert found.unscored == ("a", "c", "d")
    held = [item.label for item, s in zip(items, found.splits, strict=True) if s == "val"]
    assert held == ["b"] * 3


def test_groups_are_held_out_by_name():
    items = [
        Item(f"{label}/{who}{i}.wav", label, who) for label in "ab" for who in "xyz" for i in "12"
    ]
    items.append(Item("a/alone.wav", "a"))
    found = split_items(items, alone(items), DataConfig(holdout=" y, z "), 0)
    val = [item for item, s in zip(items, found.splits, strict=True) if s == "val"]
    assert {item.group for item in val} == {"y", "z"}
    assert len(val) == 8
    assert found.rule == "groups held out: y, z"
    tested = [*items, Item("b/t.wav", "b", "y", "test")]
    assert split_items(tested, alone(tested), DataConfig(holdout="y"), 0).splits[-1] == "test"


@pytest.mark.parametrize(
    ("items", "holdout", "message"),
    [
        ([Item("1", "a", "east"), Item("2", "a", "y")], "esat", "the nearest is 'east'"),
        ([Item("1", "a"), Item("2", "b")], "x", "data.holdout needs groups"),
        ([Item("1", "a", "x", "val"), Item("2", "a", "y")], "x", "give a validation split already"),
        ([Item("1", "a", "x"), Item("2", "a", "y")], "x,y", "not none and not all"),
        ([Item("1", "a", "x"), Item("2", "a", "y")], ",", "not none and not all"),
        ([Item("1", "a", "x"), Item("2", "b", "y")], "x", "class 'a' occurs only in the groups"),
        ([Item("1", "a", "x"), Item("2", "a", "y", "test")], "y", "in the test split"),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(items, holdout, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        split_items(items, alone(items), DataConfig(holdout=holdout), 0)
    assert str(caught.value).startswith("data.holdout")


def test_segments_of_a_file_stay_in_one_split_and_are_no_duplicates():
    items = [
        Item(f"{file}.wav", "ab"[n % 2], start=float(n), end=n + 1.0)
        for file in range(8)
        for n in range(6)
    ]
    digests = [item.path for item in items]
    splits = split(items, digests, 0.25, seed=1)
    assert all(len(found) == 1 for found in splits_of(digests, splits).values())
    assert splits.count("val") == 12
    assert conflicting_duplicates(items, digests) == []
    twins = [*items, dataclasses.replace(items[0], path="copy.wav", label="z")]
    (warning,) = conflicting_duplicates(twins, [*digests, digests[0]])
    assert "'0.wav [0–1 s]' ('a'), 'copy.wav [0–1 s]' ('z')" in warning


def test_speakers_that_make_a_split_impossible_are_an_error():
    # Three classes, three speakers, each in two classes: one class is always in one split only.
    pairs = {"x": "ab", "y": "bc", "z": "ca"}
    items = [Item(f"{c}/{who}.wav", c, who) for who, both in pairs.items() for c in both]
    with pytest.raises(UserError, match="cannot be in both train and val"):
        split(items, alone(items), 0.3, seed=0)


def possible(items):
    """Returns whether any choice of groups puts every class in both splits (exhaustive search)."""
    labels, groups = {item.label for item in items}, sorted({item.group for item in items})
    for chosen in itertools.product([False, True], repeat=len(groups)):
        val = {group for group, take in zip(groups, chosen, strict=True) if take}
        splits = [{i.label for i in items if (i.group in val) == split} for split in (False, True)]
        if splits == [labels, labels]:
            return True
    return False


# From 663 on: items for which the first greedy choice leaves a class out.
@pytest.mark.parametrize("seed", [*range(40), 663, 734, 959, 1551])
def test_items_are_refused_only_if_no_split_exists(seed):
    rng = random.Random(seed)
    items = [
        Item(f"{group}/{take}.wav", f"class{rng.randrange(4)}", f"speaker{group}")
        for group in range(rng.randint(2, 6))
        for take in range(rng.randint(1, 4))
    ]
    if possible(items):
        splits = split(items, alone(items), 0.3, seed)
        assert all(len(on) == 2 for on in splits_of([i.label for i in items], splits).values())
    elif not small_classes(items, alone(items)):
        with pytest.raises(UserError, match="cannot be in both train and val"):
            split(items, alone(items), 0.3, seed)


def test_leaks_of_a_given_split_are_counted_with_an_example():
    items = [
        Item("train/a/1.wav", "a", "ann", "train"),
        Item("val/a/2.wav", "a", "ann", "val"),
        Item("train/b/3.wav", "b", "bob", "train"),
        Item("test/b/4.wav", "b", "cid", "test"),
    ]
    splits = [item.split for item in items]
    groups, copies = leaks(items, ["1", "2", "3", "3"], splits)
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
    assert split(items, alone(items), 0.25, seed=0).count("val") == 2


def test_the_rule_says_how_many_groups_are_held_out():
    items = [Item(f"{g}/{c}{i}.wav", c, g) for g in "xyz" for c in "ab" for i in range(4)]
    rule = split_items(items, alone(items), DataConfig(), 0).rule
    assert rule.endswith("seed 0, groups kept together: 1 of 3 held out")
    items = [
        Item(f"{r}.wav", c, start=float(i), end=i + 1.0) for r in "uvwx" for i, c in enumerate("ab")
    ]
    rule = split_items(items, [item.path for item in items], DataConfig(), 0).rule
    assert rule.endswith("recordings kept together: 1 of 4 held out")


def test_classes_without_validation_items_are_warned_of():
    items = [Item(f"{i}.wav", label) for i, label in enumerate("aabb")]
    splits = ["train", "val", "train", "train"]
    assert classes_without_val(items, splits) == ["1 of 2 classes without validation items: 'b'"]
    assert classes_without_val(items[:2], splits[:2]) == []


def test_folders_named_like_splits_that_are_not_used_are_warned_of():
    items = [Item(f"{split}/{i}.wav", "ab"[i]) for split in ("train", "Test") for i in range(2)]
    (warning,) = unused_split_folders(items)
    assert "('Test', 'train')" in warning
    assert unused_split_folders(items[:2]) == []
    assert unused_split_folders([dataclasses.replace(i, split="val") for i in items]) == []
