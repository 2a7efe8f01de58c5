"""Words for splits, and names of folders that are splits or folds, not classes.

A name looks like a split or fold if it is one of

* a word for a split in any case, alone or with neutral words and numbers before or after it:
  `Training`, `audio_train`, `Test Set`, `testdata`, `test2`;
* `fold` with a number or a letter, whatever else is in the name: `fold1`, `us8k-fold-03`, `kfold`;
* `split`, `part`, `subset` and the like with a number or letter, and neutral words: `audio_part2`.

Other words next to a word for a split make an ordinary name (`train horn`, `test_drive`), unless a
sibling differs from it in that word only (`esc50_train` beside `esc50_test`).

Two such names are classes if no sibling looks like a split: `train`, which may be a vehicle beside
`bus` and `tram`, and `valid` beside `invalid`. See `not_classes`.
"""

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

_WORDS = {
    "train": "train training trainingsdaten trainingsdatensatz lernen lerndaten übung uebung "
    "entrenamiento entrenar entrainement entraînement apprentissage treino treinamento "
    "addestramento allenamento opleiding träning trening træning treenaus harjoittelu treningowe "
    "treningowy trénovací antrenare eğitim latihan pelatihan latih huấnluyện обучение обучающая "
    "тренировка тренировочная навчання тренувальна εκπαίδευση تدريب آموزش אימון प्रशिक्षण ฝึก "
    "训练 訓練 トレーニング 훈련 학습 学習",
    "val": "val valid validation validate dev devel development validierung validierungsdaten "
    "validationsdaten validación validacion validar validação validacao validazione validatie "
    "validering validointi walidacja walidacyjne validační validare doğrulama validasi "
    "валидация валідація επικύρωση सत्यापन 验证 驗證 検証 バリデーション 검증",
    "test": "test tests testing eval evaluation holdout heldout testen testdaten testdatensatz "
    "prüfung pruefung prüfdaten prueba pruebas probar evaluación évaluation teste testes avaliação "
    "avaliacao valutazione testning testaus testowe testowy testovací testare pengujian uji "
    "kiểmtra тест тестовая тестирование тестування δοκιμή اختبار آزمون בדיקה परीक्षण ทดสอบ "
    "测试 測試 テスト 테스트 평가 評価",
}
SPLIT_OF_NAME = {word: split for split, words in _WORDS.items() for word in words.split()}
"""Split by the lower-case name of a folder, value of a table, or TFDS split."""

_NEUTRAL = (
    "audio audios sound sounds wav wavs mp flac file files clip clips sample samples segment "
    "segments recording recordings image images img imgs picture pictures png jpg jpeg photo "
    "photos mel spec specs spectrogram spectrograms data dataset datasets db set sets split splits "
    "folder folders dir directory list lists curated noisy clean other balanced unbalanced "
    "labeled labelled unlabeled unlabelled public private small full mini raw processed original "
    "final new old aug augmented resized cross k fold folds of v version x y hz khz the my for and "
    "in out daten données datos dados dati dane gegevens 集 数据 数据集 用 データ セット 용 데이터 "
    "데이터셋 ชุด"
)
_SHORT = {
    **dict.fromkeys(("tr", "tra", "trn"), "train"),
    **dict.fromkeys(("cv", "dt", "va", "vl"), "val"),
    **dict.fromkeys(("te", "ts", "tt", "tst", "et"), "test"),
}
"""Split by abbreviations that count only if all siblings are such."""
_FOLDS = frozenset(("fold", "folds", "kfold", "kfolds", "cvfold"))
_PARTS = frozenset(
    (
        *(
            "split",
            "part",
            "partition",
            "subset",
            "shard",
            "chunk",
            "batch",
            "set",
            "dataset",
            "cv",
        ),
        *("teil", "parte", "partie", "часть"),
    )
)


def _plain(text: str) -> str:
    """Returns `text` without accents, so that composed and decomposed names are the same."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(char for char in decomposed if unicodedata.category(char)[0] != "M")


_SPLITS = {_plain(word): split for word, split in SPLIT_OF_NAME.items()}
_NEUTRAL_WORDS = frozenset(map(_plain, _NEUTRAL.split()))
_NEUTRAL_ENDS = sorted((w for w in _NEUTRAL_WORDS if len(w) > 2 or not w.isascii()), key=len)[::-1]
_ANY_SPLIT = "|".join(sorted(_SPLITS, key=len, reverse=True))
_GLUED = re.compile(
    "(?:{0})?((?:{1})+)(?:{0})?".format(
        "|".join(_NEUTRAL_ENDS), _ANY_SPLIT
    )  # 'testset', 'trainval'
)
_AT_END = re.compile("(?<=.)(train|test|valid|val|dev|eval)$")
_CAMEL = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


class _Parts(NamedTuple):
    """The parts of a name."""

    splits: frozenset[str]  # that its words stand for
    rest: tuple[str, ...]  # the other words, without neutral ones and numbers


@functools.lru_cache(10_000)
def _parts(name: str) -> _Parts:
    """Returns the parts of a name; a capital inside a word starts a new one if that helps."""
    plain = _plain(name)
    readings = [_CAMEL.findall(plain), _TOKEN.findall(plain), ["".join(_TOKEN.findall(plain))]]
    found = [parts for parts in map(_read, readings) if parts.splits]
    return min(found, key=lambda parts: len(parts.rest), default=_Parts(frozenset(), ()))


def _read(tokens: Collection[str]) -> _Parts:
    splits, rest = set(), []
    for token in map(str.lower, tokens):
        if match := _GLUED.fullmatch(token):
            splits.update(_SPLITS[word] for word in re.findall(_ANY_SPLIT, match[1]))
        elif token not in _NEUTRAL_WORDS and not token.isdigit():
            rest.append(token)
    return _Parts(frozenset(splits), tuple(rest))


def split_of(name: str) -> str:
    """Returns the split that a folder's name stands for; '' if none, or more than one."""
    return splits_of([name]).get(name, "")


def splits_of(names: Collection[str]) -> dict[str, str]:
    """Returns the split of each of `names` that stands for one; all are siblings."""
    if short := _abbreviations(names):
        return short
    found = {*filter(looks_like_split, names), *_paired(names)}
    splits = {name: _parts(name).splits for name in names if name in found and not _is_fold(name)}
    return {name: min(each) for name, each in splits.items() if len(each) == 1}


def _abbreviations(names: Collection[str]) -> dict[str, str]:
    """Returns the split of each of `names` if all are abbreviations of different splits, or {}."""
    splits = {name: _SHORT[name.lower()] for name in names if name.lower() in _SHORT}
    distinct = set(splits.values())
    return splits if len(distinct) == len(names) and "train" in distinct else {}


def looks_like_split(name: str) -> bool:
    """Returns whether a name by itself is a split or a fold, not a class; see the module."""
    splits, rest = _parts(name)
    return bool(splits and not rest) or _is_fold(name)


def not_classes(names: Collection[str]) -> list[str]:
    """Returns the names that must not be learned as classes; all `names` are siblings.

    These are all names that look like splits or folds, and names that differ in the word for the
    split only; but not `train` or `valid` among ordinary names.
    """
    if short := _abbreviations(names):
        return sorted(short)
    found = {*filter(looks_like_split, names), *_paired(names)}
    if len(found) == 1 < len(names):
        word, siblings = min(found).lower(), {name.lower() for name in names}
        if word == "train" or (word == "valid" and "invalid" in siblings):
            return []
    return sorted(found)


def _paired(names: Collection[str]) -> list[str]:
    """Returns the names that have a word for a split and belong together.

    These are names that differ in the split only, as 'esc50_train' and 'esc50_test' or 'xtrain' and
    'xtest'; all names, if each has such a word, as 'training-a' and 'training-b'; and the longer
    ones, if several names are others and a split, as 'cat', 'cat-test', 'dog' and 'dog-test'.
    """
    if len(names) > 1 and all(_parts(name).splits for name in names):
        return list(names)
    alike, glued = defaultdict(dict), defaultdict(dict)
    for name in names:
        if splits := _parts(name).splits:
            alike[_parts(name).rest][name] = splits
        if match := _AT_END.search(name.lower()):
            glued[name[: match.start()].lower()][name] = _SPLITS[match[0]]
    found = [
        name
        for group in (*alike.values(), *glued.values())
        if len(set(group.values())) > 1
        for name in group
    ]
    lower = {name.lower() for name in names}
    longer = [each for rest, group in alike.items() if " ".join(rest) in lower for each in group]
    return found + longer * (len(longer) > 1)


def are_parts(names: Collection[str]) -> bool:
    """Returns whether names look like parts of a set: 'day1', 'day2' or 'original', 'augmented'.

    Numbers alone may be classes.
    """
    rests = [_read(_CAMEL.findall(_plain(name))).rest for name in names]
    numbered = all(re.search(r"\d", name) for name in names)
    if not any(rests):
        return not any(map(str.isdigit, names))
    return numbered and len(set(rests)) == 1


@functools.lru_cache(10_000)
def _is_fold(name: str) -> bool:
    *others, last = _TOKEN.findall(_plain(name).lower()) or [""]
    if others and len(last) == 1 and others[-1] in _FOLDS | _PARTS:
        last = "1"  # a letter counts as a number: 'fold_a'
    numbered = any(map(str.isdigit, (*others, last)))
    words = {token for token in (*others, last) if not token.isdigit()}
    if words & _FOLDS:
        return numbered or bool(words & {"kfold", "kfolds", "k"})
    return bool(words & _PARTS) and words <= _PARTS | _NEUTRAL_WORDS and numbered
