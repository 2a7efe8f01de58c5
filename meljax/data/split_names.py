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
    "обучающие тренировка тренировочная навчання тренувальна εκπαίδευση "
    "تدريب آموزش אימון प्रशिक्षण ฝึก 训练 訓練 トレーニング 훈련 학습 学習",
    "val": "val valid validation validate dev devel development validierung validierungsdaten "
    "validationsdaten validación validacion validar validação validacao validazione validatie "
    "validering validointi walidacja walidacyjne validační validare doğrulama validasi "
    "валидация валідація επικύρωση सत्यापन 验证 驗證 検証 バリデーション 검증",
    "test": "test tests testing eval evaluation holdout heldout testen testdaten testdatensatz "
    "prüfung pruefung prüfdaten prueba pruebas probar evaluación évaluation teste testes avaliação "
    "avaliacao valutazione testning testaus testowe testowy testovací testare pengujian uji "
    "kiểmtra teszt testi тест тестовая тестовые тестирование тестування δοκιμή "
    "اختبار آزمون בדיקה परीक्षण ทดสอบ 测试 測試 テスト 테스트 평가 評価",
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
    "in out daten données datos dados dati dane gegevens menge smenge 集 数据 数据集 样本 音频 "
    "语音 图片 用 データ セット 音声 画像 용 데이터 데이터셋 ชุด"
)
_SHORT = {
    **dict.fromkeys(("tr", "tra", "trn"), "train"),
    **dict.fromkeys(("cv", "dt", "va", "vl"), "val"),
    **dict.fromkeys(("te", "ts", "tt", "tst", "et", "ev"), "test"),
}
"""Split by abbreviation; used only if all siblings are abbreviations, one of them for train."""
_TIMES = "session sessions day days date week month year night visit take trial rep repetition run"
_TIMES += " round tape v version mic microphone channel ch device recorder"
_SOURCES = "s id speaker spk subject sub user person actor site station location bird animal"
_PARTS_OF_TIME = frozenset(_TIMES.split())
"""Words that, with a number, name a part of a data set, such as 'day1'."""
_PARTS_OF_CLASSES = frozenset([*_TIMES.split(), *_SOURCES.split()])
"""These words, and words for sources, such as 'speaker1', which may also be the classes."""
_FORMS = "wav wavs mp flac audio audios raw processed original aug augmented resized resampled"
_VERSIONS = frozenset([*_FORMS.split(), "cropped", "mono", "stereo", "k", "khz", "hz"])
"""Words for versions of the same recordings."""
_COUNTED = "one two three four five six seven eight nine ten"
_FOLDS = frozenset(("fold", "folds", "kfold", "kfolds", "cvfold", "xval", "pliegue", "折"))
_NUMBERS = frozenset(_COUNTED.split())
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
    "(?:{0})*?((?:{1})+)(?:{0})*".format(
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
    """Returns the split of each of `names` if they are abbreviations, or {}.

    They must be for different splits, one of them train, and otherwise equal.
    """
    if len(names) < 2:
        return {}
    splits, others = {}, set()
    for name in names:
        *other, last = _TOKEN.findall(name.lower()) or [""]
        others.add(tuple(other))
        splits[name] = _SHORT.get(last, "")
    distinct = set(splits.values())
    fits = len(others) == 1 and len(distinct) == len(splits) and "train" in distinct
    return splits if fits and "" not in distinct else {}


def looks_like_split(name: str) -> bool:
    """Returns whether a name by itself is a split or a fold, not a class; see the module."""
    splits, rest = _parts(name)
    return bool(splits and not rest) or _is_fold(name)


def not_classes(names: Collection[str]) -> list[str]:
    """Returns the names that must not be learned as classes; all `names` are siblings.

    These are abbreviations of splits, names that look like splits or folds, and names that belong
    together by a word for a split; but not `train` or `valid` among ordinary names.
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
    'xtest'; all names, if each has such a word, as 'training-a' and 'training-b'; and several names
    that add such a word to a sibling's name: 'cat-test' and 'dog-test' beside 'cat' and 'dog'.
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


def are_parts(names: Collection[str], of_classes: bool = True) -> bool:
    """Returns whether all names are parts or versions of a set: 'day1', '2024-05-01', 'raw', 'wav'.

    `of_classes`: names of speakers or places with a number, such as 's1', are parts too. Numbers
    alone may be classes.
    """
    words = _PARTS_OF_CLASSES if of_classes else _PARTS_OF_TIME
    return len(names) > 1 and all(_is_part(name, words) for name in names)


def _is_part(name: str, words: Collection[str]) -> bool:
    tokens = [token.lower() for token in _CAMEL.findall(_plain(name))]
    numbers = [token for token in tokens if token.isdigit()]
    rest = {token for token in tokens if not token.isdigit()}
    if numbers and not rest:
        return len(numbers) > 1  # a date
    if _is_fold(name):
        return True
    return rest <= _VERSIONS or (bool(numbers) and len(rest) == 1 and rest <= words)


@functools.lru_cache(10_000)
def _is_fold(name: str) -> bool:
    *others, last = [token.lower() for token in _CAMEL.findall(_plain(name))] or [""]
    if others and (len(last) == 1 or last in _NUMBERS) and others[-1] in _FOLDS | _PARTS:
        last = "1"  # a letter or word counts as a number: 'fold_a', 'part one'
    numbered = any(map(str.isdigit, (*others, last)))
    words = {token for token in (*others, last) if not token.isdigit()} - {"第"}
    if words & _FOLDS:
        return numbered or bool(words & {"kfold", "kfolds", "k"})
    return bool(words & _PARTS) and words <= _PARTS | _NEUTRAL_WORDS and numbered
