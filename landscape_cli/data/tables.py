"""The tables known by name: what they hold, where their files are published, and the pinned digest of their values.

Files of a table differ in line ends, quotes and separators from copy to copy, so what decides is what they parse to.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from landscape_cli.errors import BadInput

# How a table's values are had.
DELIMITED, BLANKS, ARFF, SCIKIT_LEARN, GENERATED = "delimited", "blanks", "arff", "scikit-learn", "generated"


@dataclass(frozen=True)
class TableFile:
    """A published file."""

    name: str  # below tabular/ of a data root, or below the root itself
    url: str
    sha256: str | None = None  # of the bytes at the url; None: they may be laid out otherwise, the values decide
    member: str | None = None  # of the zip archive at the url, which is then not the file itself
    export: str | None = None  # another file with these values, which will do as well

    @property
    def forms(self) -> tuple[str, ...]:
        """File names, either of which will do; the quicker one to read first."""
        return (self.name,) if self.export is None else (self.export, self.name)


@dataclass(frozen=True)
class TableSet:
    """A published table: a row an object, a column the target."""

    name: str
    title: str
    description: str
    files: tuple[TableFile, ...]  # one below the other; none where scikit-learn ships it or it is generated
    reader: str
    target: str
    task: str  # "regression" or "classification"
    rows: int
    columns: int  # with the target and what is dropped
    complete: int  # rows without a missing value in a used column
    digest: str  # SHA-256 of the values, as landscape_cli.data.table_files.digest takes it
    header: tuple[str, ...] = ()  # the columns' names where the file has none
    missing: str = ""  # a cell that says that there is no value, beside the empty one
    joined: tuple[str, tuple[str, ...]] | None = None  # a column that tells the files apart, and its value in each
    drop: tuple[str, ...] = ()  # columns left out unless asked for
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # text column -> its values in order
    encoding: str | None = None  # of text columns; None where there are none
    embedded: str | None = None  # what stands in for it where there is no data; None: the task's

    @property
    def stand_in(self) -> str:
        """The table in its place under profile=embedded: itself where it needs no file."""
        if not self.files:
            return self.name
        return self.embedded or STAND_INS[self.task]


STAND_INS = {"regression": "sklearn_diabetes", "classification": "breast_cancer"}

_UCI = "https://archive.ics.uci.edu/ml/machine-learning-databases"
_PAPER = (
    "https://raw.githubusercontent.com/andriygav/SampleSizeApproximation/"
    "ebb991e85ffb0923db91dc09c234ed498f6100ac/SampleSize/datasets"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LETTERS = ("A", "B", "C", "D", "E")
_ABALONE = ("sex", "length", "diameter", "height", "whole_weight", "shucked_weight", "viscera_weight", "shell_weight")
_AUTO_MPG = ("mpg", "cylinders", "displacement", "horsepower", "weight", "acceleration", "model_year", "origin")
_AUTOMOBILE = (
    *("symboling", "normalized-losses", "make", "fuel-type", "aspiration", "num-of-doors", "body-style"),
    *("drive-wheels", "engine-location", "wheel-base", "length", "width", "height", "curb-weight", "engine-type"),
    *("num-of-cylinders", "engine-size", "fuel-system", "bore", "stroke", "compression-ratio", "horsepower"),
    *("peak-rpm", "city-mpg", "highway-mpg", "price"),
)


def _paper(file: str, sha256: str) -> tuple[TableFile, ...]:
    return (TableFile(f"sample_size_paper/{file}", f"{_PAPER}/{file}", sha256),)


TABLE_SETS: dict[str, TableSet] = {
    table.name: table
    for table in (
        TableSet(
            name="boston",
            title="Boston Housing",
            description="house prices",
            files=_paper("boston.csv", "57a90ded5d2e6226bf2c77c5a5f675b4e3ee702e6181fcca3a00a3c080c166ab"),
            reader=DELIMITED,
            target="answer",
            task="regression",
            rows=506,
            columns=14,
            complete=506,
            digest="3edb2d6e9a189470990e5ef2e0deb82411c011266f09acfa5a280f6026455ab1",
        ),
        TableSet(
            name="diabetes",
            title="Diabetes",
            description="progression of a disease",
            files=_paper("diabetes.csv", "99786f1e81db83669423c7e42c6f84a64c8ec065f9c9266a0efdaca0ba5f269d"),
            reader=DELIMITED,
            target="answer",
            task="regression",
            rows=442,
            columns=11,
            complete=442,
            digest="8af0782bb742aadba812731dc51060cdedc60504010a601316d1c572eccbf05d",
        ),
        TableSet(
            name="forest_fires",
            title="Forest Fires",
            description="burned area",
            files=_paper("forestfires.csv", "ce50e1a8a3ec7fc1428d1810ed2d9cd37968dcd54ac29dd4e013e5a9cf5a5101"),
            reader=DELIMITED,
            target="answer",
            task="regression",
            rows=517,
            columns=13,
            complete=517,
            digest="eb01352e1462b4f09f91c1b31f589185f415b974645f7272936e5ff3e43fa900",
            orders={"month": _MONTHS, "day": _DAYS},
            encoding="ordinal",
        ),
        TableSet(
            name="servo",
            title="Servo",
            description="rise time of a servomechanism",
            files=_paper("servo.csv", "c4c16e7a394a9a56e31ade494c9bc5a989ec38260d8cae9c475f41f70f10ef32"),
            reader=DELIMITED,
            target="answer",
            task="regression",
            rows=167,
            columns=5,
            complete=167,
            digest="6112f3df9cc71dd3f4baa2a06bb13a587906510898878b43db1081c43b813930",
            orders={"motor": _LETTERS, "screw": _LETTERS},
            encoding="ordinal",
        ),
        TableSet(
            name="nba",
            title="NBA",
            description="careers of basketball players, five years or longer",
            files=_paper("nba.csv", "a8b3de4a942d94536376b0a66bf65bb02765891d9d463df369616ca3a8194f8d"),
            reader=DELIMITED,
            target="answer",
            task="classification",
            rows=1340,
            columns=20,
            complete=1329,
            digest="e695dc3db732e770860440a30903359e6f1a71e6185446c5c7a5d7909f7db76e",
        ),
        TableSet(
            name="abalone",
            title="Abalone",
            description="rings of molluscs",
            files=(TableFile("abalone.data", f"{_UCI}/abalone/abalone.data"),),
            reader=DELIMITED,
            header=(*_ABALONE, "rings"),
            target="rings",
            task="regression",
            rows=4177,
            columns=9,
            complete=4177,
            digest="a84acbe8664e49fd64e32109adf4babe4999cb96c84b05694803d01f787ad63b",
            orders={"sex": ("M", "F", "I")},
            encoding="ordinal",
        ),
        TableSet(
            name="auto_mpg",
            title="Auto MPG",
            description="fuel consumption of cars",
            files=(TableFile("auto-mpg.data", f"{_UCI}/auto-mpg/auto-mpg.data"),),
            reader=BLANKS,
            header=(*_AUTO_MPG, "car_name"),
            missing="?",
            target="mpg",
            drop=("car_name",),
            task="regression",
            rows=398,
            columns=9,
            complete=392,
            digest="a0b600bf19a374cb81e4e44bd9876dd4eebfd65b6088bacdac52758f5f896d28",
            encoding="ordinal",
        ),
        TableSet(
            name="automobile",
            title="Automobile",
            description="insurance risk of cars",
            files=(
                TableFile(
                    "imports-85.data",
                    "https://raw.githubusercontent.com/sudimuk2017/Predicting-Car-Prices/"
                    "dac8659f94f5a73d193b564051b6fc2db9af61da/imports-85.data",
                    "125db8bd36a84801f7223faf54071d15f85f26c13a9a7aee63375ac46098fb7f",
                ),
            ),
            reader=DELIMITED,
            header=_AUTOMOBILE,
            missing="?",
            target="symboling",
            task="regression",
            rows=205,
            columns=26,
            complete=159,
            digest="a4d8e3a27d616863f03eb69e362888aadecaa23ede972dbdfd08e57aa2dbe466",
            orders={
                "num-of-doors": ("two", "four"),
                "num-of-cylinders": ("two", "three", "four", "five", "six", "eight", "twelve"),
            },
            encoding="ordinal",
        ),
        TableSet(
            name="liver",
            title="Liver Disorders",
            description="drinks a day",
            files=(TableFile("bupa.data", f"{_UCI}/liver-disorders/bupa.data"),),
            reader=DELIMITED,
            header=("mcv", "alkphos", "sgpt", "sgot", "gammagt", "drinks", "selector"),
            target="drinks",
            drop=("selector",),
            task="regression",
            rows=345,
            columns=7,
            complete=345,
            digest="4cf25f48c8b78e80f508801389d5618018a11ab3da7f416401c91cb419abc254",
        ),
        TableSet(
            name="wine_quality",
            title="Wine Quality",
            description="tasters' marks of wines",
            files=(
                TableFile("winequality-red.csv", f"{_UCI}/wine-quality/winequality-red.csv"),
                TableFile("winequality-white.csv", f"{_UCI}/wine-quality/winequality-white.csv"),
            ),
            joined=("color", ("red", "white")),
            reader=DELIMITED,
            target="quality",
            task="regression",
            rows=6497,
            columns=13,
            complete=6497,
            digest="794cd138dc16209c52b4b024994f694bf582637037018fcdd8988c02e6e8609a",
            orders={"color": ("red", "white")},
            encoding="ordinal",
        ),
        TableSet(
            name="energy",
            title="Energy Efficiency",
            description="heating load of buildings",
            files=(
                TableFile(
                    "ENB2012_data.xlsx",
                    "https://raw.githubusercontent.com/hafshahshaliha/ENB2012_data/"
                    "7b7c7b1951c9be7aed020e9150e7e6f81e8b9a3c/ENB2012_data.xlsx",
                    "ce80fba0fdf4be0e2f2e709fd01ff9c807246947fe666e18710d5105af7970b6",
                    export="ENB2012_data.csv",
                ),
            ),
            reader=DELIMITED,
            target="Y1",
            drop=("Y2",),
            task="regression",
            rows=768,
            columns=10,
            complete=768,
            digest="b75e3196efef53dea94fb2b819de02aa8c83f6e78d41cab43d2cdbe90addd467",
        ),
        TableSet(
            name="student",
            title="Student Performance",
            description="final grades in Portuguese",
            files=(TableFile("student-por.csv", f"{_UCI}/00320/student.zip", member="student-por.csv"),),
            reader=DELIMITED,
            target="G3",
            task="regression",
            rows=649,
            columns=33,
            complete=649,
            digest="9b29b63829218743e8fee0a711b491ee9d8c9e87a26a0779c88d65a4498eedf9",
            encoding="ordinal",
        ),
        TableSet(
            name="facebook",
            title="Facebook Metrics",
            description="interactions with posts",
            files=(
                TableFile("dataset_Facebook.csv", f"{_UCI}/00368/Facebook_metrics.zip", member="dataset_Facebook.csv"),
            ),
            reader=DELIMITED,
            target="Total Interactions",
            task="regression",
            rows=500,
            columns=19,
            complete=495,
            digest="e92d6b1d2292d207b86aec88b51eb9c105188c877cc22a3881d5b368ba51d8c4",
            encoding="ordinal",
        ),
        TableSet(
            name="real_estate",
            title="Real Estate Valuation",
            description="house prices",
            files=(
                TableFile(
                    "Real_estate_valuation_data_set.xlsx",
                    "https://raw.githubusercontent.com/angelacalicchio/A01-real-estate/"
                    "0ed828b98433f7cac6e1f8c324a77435ec7ec150/Real%20estate%20valuation%20data%20set.xlsx",
                    "61a86326339e6ee9ead2c3c7f8c6f1112555a359fd99f3533396af4ccb02f5a0",
                    export="Real_estate_valuation_data_set.csv",
                ),
            ),
            reader=DELIMITED,
            target="Y house price of unit area",
            drop=("No",),
            task="regression",
            rows=414,
            columns=8,
            complete=414,
            digest="eab8b5a12dc4be791a195a6cc12f16feaf7ef6e4ef5b56a601196300c05b591f",
        ),
        TableSet(
            name="heart_failure",
            title="Heart Failure",
            description="deaths after heart failure",
            files=(
                TableFile(
                    "heart_failure_clinical_records_dataset.csv",
                    f"{_UCI}/00519/heart_failure_clinical_records_dataset.csv",
                ),
            ),
            reader=DELIMITED,
            target="DEATH_EVENT",
            task="classification",
            rows=299,
            columns=13,
            complete=299,
            digest="47237680ba1ea73ffe3ec96643212a79d0019aa9e553b7e9465a2be14a1d3521",
        ),
        TableSet(
            name="bone_marrow",
            title="Bone Marrow Transplant",
            description="survival of children",
            files=(
                TableFile(
                    "bone-marrow.arff",
                    "https://raw.githubusercontent.com/SzymonSowinski/Bone-marrow-transplant-variable-importance/"
                    "f6e72f60e21999e538b79d13850749c290db573f/bone-marrow.arff",
                    "aae61db934f7ab25e2f582162ddad11d1e1773c99bdc81c369751646193889d6",
                ),
            ),
            reader=ARFF,
            missing="?",
            target="survival_status",
            task="classification",
            rows=187,
            columns=37,
            complete=142,
            digest="58d960bba40f87ed0931ba53b0b98e12c546f926ab54aa49c97f365832036bf8",
            orders={"risk_group": ("low", "high"), "recipient_age_int": ("0_5", "5_10", "10_20")},
            encoding="ordinal",
        ),
        TableSet(
            name="sklearn_diabetes",
            title="Diabetes (scikit-learn)",
            description="progression of a disease",
            files=(),
            reader=SCIKIT_LEARN,
            target="target",
            task="regression",
            rows=442,
            columns=11,
            complete=442,
            digest="5a49d70e68361cb0be296ded51a45a2bf85b407f3315ca04c8eace576560c7ba",
        ),
        TableSet(
            name="wine",
            title="Wine",
            description="cultivars of wines",
            files=(),
            reader=SCIKIT_LEARN,
            target="target",
            task="classification",
            rows=178,
            columns=14,
            complete=178,
            digest="8714ce6b3e3009f218af3c32fb4020d57ccb15a5de0bfeb09b74ebd798ea8846",
        ),
        TableSet(
            name="breast_cancer",
            title="Breast Cancer",
            description="malignant and benign tumours",
            files=(),
            reader=SCIKIT_LEARN,
            target="target",
            task="classification",
            rows=569,
            columns=31,
            complete=569,
            digest="5e0dda374d7fea718082470a928148cf8de517eab2c67fca26552feccca1eb37",
        ),
        TableSet(
            name="synthetic_regression",
            title="Synthetic regression",
            description="a linear model with noise",
            files=(),
            reader=GENERATED,
            target="y",
            task="regression",
            rows=1000,
            columns=21,
            complete=1000,
            digest="b1c4a18d9a0c3590f947bd2e94261fc8f6248d6e5b183763d389ad637d2a3402",
        ),
        TableSet(
            name="synthetic_regression_500",
            title="Synthetic regression 500 x 10",
            description="a linear model with noise",
            files=(),
            reader=GENERATED,
            target="y",
            task="regression",
            rows=500,
            columns=11,
            complete=500,
            digest="f2f2e5047ef1a4ea7fc02422975d57721009187aeb703a9233a6d40eea83f9f9",
        ),
        TableSet(
            name="synthetic_relevance",
            title="Synthetic data",
            description="one relevant feature of a hundred",
            files=(),
            reader=GENERATED,
            target="y",
            task="regression",
            rows=10000,
            columns=101,
            complete=10000,
            digest="c3cf7fe50fa9ac633c3ef26f5eb07fe784da2406af429b0acefeae4693e7bf74",
        ),
        TableSet(
            name="synthetic_classification",
            title="Synthetic classification",
            description="a logistic model",
            files=(),
            reader=GENERATED,
            target="y",
            task="classification",
            rows=1000,
            columns=21,
            complete=1000,
            digest="24a213a02a11ff9cc76fa4975154d617ee0bcb0a9ac95bf2b51679c0cfbbc553",
        ),
    )
}


def default_drop(published: TableSet, target: str) -> list[str]:
    """Return the columns left out unless asked for; a set's other target, where the two change places, too."""
    return [published.target if name == target else name for name in published.drop]


def check_table_name(name: str, path: str | None, key: str = "dataset.name") -> None:
    """Refuse a name that is neither a known table nor that of a user's own file.

    Parameters
    ----------
    path
        Of the user's own file, which a known table has not.
    key
        Where the name stands, for messages.

    Raises
    ------
    BadInput
        With what is allowed.
    """
    if name in TABLE_SETS:
        if path is not None:
            raise BadInput(
                f"dataset.path: {path!r} with the table {name!r}, which has its own file; allowed: dataset=csv"
            )
    elif path is None and name == "csv":
        raise BadInput("dataset.path: null; allowed: a table of yours, as in dataset.path=FILE dataset.target=COLUMN")
    elif path is None:
        near = difflib.get_close_matches(name, TABLE_SETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(TABLE_SETS)
        raise BadInput(f"{key}: {name!r} is no table{hint}; known: {known}; your own: dataset=csv dataset.path=FILE")
