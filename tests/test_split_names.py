"""Names that are splits or folds, and names that are classes."""

import unicodedata

import pytest

from meljax.data.split_names import are_parts, looks_like_split, not_classes, split_of, splits_of

SPLITS = {
    "train": "train Train TRAIN training Training TRAINING trainset TrainSet train_set "
    "Training-Set train-images train.audio audio_train data_train traindata TrainingData "
    "training_data X_train train1 train_01 1.Training train-clean-100 train_curated "
    "unbalanced_train_segments entrenamiento entraînement entrainement apprentissage "
    "treino Trainingsdaten 训练集 train_2019 imgTrain TRAINset my-train-set trainImages k_train",
    "val": "val Val VAL valid Valid validation Validation dev Dev devel development devset valset "
    "dev-clean val_images 2.Validation audio_val validación validation_split Validierungsdaten",
    "test": "test Test TEST testing Testing testset TestData test_set test2 test-other eval Eval "
    "evaluation Evaluation evalset eval_segments audio_test holdout hold-out held_out public_test "
    "Testdaten prueba teste 测试集 テスト X_test test.images",
}
FOLDS = """fold1 fold_01 fold-1 fold.3 Fold10 FOLD_2 fold1of5 1fold 5-fold fold_a us8k-fold-03
    audio_fold4 esc50_fold5 folds_1 kfold k-fold kfolds cvfold2 cv1 cv_fold_1 split1 split_02
    audio_split3 part1 part-2 Part3 part_b audio_part4 subset1 shard-00001-of-00010 chunk_03
    foldA splitB 第1折 pliegue_1 xval1 part_one batch_1 data_batch_2 partition5 set1 set_b trainval
    train_val train-test devtest"""
ORDINARY = """dog cat train_horn training_dog steam_train trains trainer trained train_station
    strain restrain tester testament contest latest protest attest fastest detest test_drive
    drug_test interval carnival naval rival arrival festival devil device developer evaluate_me
    invalid validity evil medieval fold split part set data audio parts_of_speech part_of_speech
    body_part_1 engine_part_2 banana_split_2 manifold_2 scaffold1 blindfold1 tenfold cross new
    group1 Actor_01 Session1 speaker12 id10001 class_3 0 1 10 007 2019 3.5 n01440764 a b
    sit down left right unknown _silence_ background_noise low mid high Käfer nan"""


@pytest.mark.parametrize("split", SPLITS)
def test_words_for_splits(split):
    assert {name: split_of(name) for name in SPLITS[split].split()} == dict.fromkeys(
        SPLITS[split].split(), split
    )


@pytest.mark.parametrize(
    ("name", "split"), [("Train Set", "train"), ("Test Images", "test"), ("Hold out", "test")]
)
def test_words_may_be_separated_by_spaces(name, split):
    assert split_of(name) == split


def test_names_that_look_like_splits_or_folds():
    names = [
        *" ".join(SPLITS.values()).split(),
        *FOLDS.split(),
        "Fold 10",
        "k fold 3",
        "Part B",
        "Set A",
    ]
    assert len(names) > 80
    assert [name for name in names if not looks_like_split(name)] == []


def test_folds_and_several_splits_are_no_single_split():
    assert {split_of(name) for name in (*FOLDS.split(), *ORDINARY.split())} == {""}


def test_ordinary_names():
    names = [
        *ORDINARY.split(),
        "train horn",
        "parts of speech",
        "test drive",
        "set of keys",
        "",
        "…",
    ]
    assert len(names) > 70
    assert [name for name in names if looks_like_split(name)] == []
    assert not_classes(names) == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["entraînement", "Validación", "훈련", "デースト", "テストデータ"])
def test_composed_and_decomposed_names_are_the_same(form, name):
    assert looks_like_split(unicodedata.normalize(form, name)) == looks_like_split(name)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["train", "bus", "tram"], []),
        (["Train", "Bus"], []),
        (["test", "cat", "dog"], ["test"]),
        (["Val", "Kim", "Lee"], ["Val"]),
        (["valid", "cat"], ["valid"]),
        (["audio_train", "cat"], ["audio_train"]),
        (["valid", "invalid"], []),
        (["freight_train", "steam_train", "bus"], []),
        (["train_horn", "bus_horn"], []),
        (["low", "mid", "part"], []),
        (["train"], ["train"]),
        (["train", "test"], ["test", "train"]),
        (["train", "test", "cat"], ["test", "train"]),
        (["fold1", "cat", "dog"], ["fold1"]),
        (["test1", "cat"], ["test1"]),
        (["esc50_train", "esc50_test"], ["esc50_test", "esc50_train"]),
        (["FSD.audio_train_curated", "FSD.test"], ["FSD.audio_train_curated", "FSD.test"]),
        (["cat_train", "cat_test", "dog_train"], ["cat_test", "cat_train", "dog_train"]),
        (["0", "1", "10"], []),
        ([], []),
    ],
)
def test_siblings_decide_which_names_are_classes(names, found):
    assert not_classes(names) == found


def test_names_that_differ_in_the_split_only_are_splits():
    assert splits_of(["esc50_train", "esc50_test"]) == {
        "esc50_train": "train",
        "esc50_test": "test",
    }
    assert splits_of(["steam_train", "train", "fold1"]) == {"train": "train"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("eğitim doğrulama", "train val"),
        ("dane_treningowe dane_testowe", "train test"),
        ("träning testning", "train test"),
        ("Lerndaten Prüfdaten", "train test"),
        ("addestramento valutazione", "train test"),
        ("latihan validasi uji", "train val test"),
        ("huấn_luyện kiểm_tra", "train test"),
        ("تدريب اختبار", "train test"),
        ("प्रशिक्षण सत्यापन परीक्षण", "train val test"),
        ("ชุดฝึก ชุดทดสอบ", "train test"),
        ("学習用 検証用 評価用", "train val test"),
        ("тренировка валидация тестирование", "train val test"),
        ("trn tst", "train test"),
        ("tr cv tt", "train val test"),
        ("samples_tr samples_te", "train test"),
        ("训练样本 测试样本", "train test"),
        ("訓練用音声 テスト用音声", "train test"),
        ("Trainingsmenge Testmenge", "train test"),
    ],
)
def test_splits_in_other_languages_and_short(names, expected):
    names = names.split()
    assert splits_of(names) == dict(zip(names, expected.split(), strict=True))
    assert not_classes(names) == sorted(names)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("xtrain xtest other", "xtest xtrain"),
        ("cat cat-test dog dog-test", "cat-test dog-test"),
        ("a b test_a test_b", "test_a test_b"),
    ],
)
def test_names_that_differ_from_others_by_a_split(names, found):
    assert not_classes(names.split()) == found.split()


@pytest.mark.parametrize(
    "names",
    ["tr en te", "te en", "train_horn horn bell", "trainer tester", "interval carnival", "va ts"],
)
def test_similar_names_of_classes(names):
    assert not_classes(names.split()) == []


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("s1 s2", True),
        ("Session_01 Session_02", True),
        ("2023-01 2023-02", True),
        ("wav mp3", True),
        ("original augmented", True),
        ("fold1 fold2", True),
        ("1 2", False),
        ("male female", False),
        ("cat1 dog1", False),
        ("class1 class2", False),
        ("emotion_1 emotion_2", False),
    ],
)
def test_names_of_parts(names, parts):
    assert are_parts(names.split()) == parts


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("Session1 Session2", True),
        ("2024-05-01 2024-05-02", True),
        ("AudioWAV AudioMP3", True),
        ("raw processed", True),
        ("v1 v2", True),
        ("spk1 spk2", False),
        ("Actor_01 Actor_02", False),
        ("clean noisy", False),
        ("2019 2020", False),
        ("day night", False),
    ],
)
def test_names_that_are_no_classes_at_all(names, parts):
    assert are_parts(names.split(), of_classes=False) == parts
