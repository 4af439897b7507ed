"""Labelled series are read from each layout in which benchmarks are published."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmark.accuracy.datasets import find_vus_window, load_folder

MANIFEST = "file,source,series,n,train_prefix,period_acf,licence,vus_window\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_gzip(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


@pytest.fixture
def tidemark_folder(tmp_path):
    write_gzip(tmp_path / "dev" / "a.csv.gz", "timestamp,value,label\n100,1,0\n160,2.5,1\n220,3,0\n")
    write_gzip(
        tmp_path / "extra" / "b.csv.gz", "timestamp,value,label\n1970-01-01 00:01:00,7,1\n1970-01-01 00:02:00,8,1\n"
    )
    rows = 'dev/a.csv.gz,KPI,web/a,3,2,24,"MIT, as published",40\nextra/b.csv.gz,PUMP,b,2,1,0,none,\n'
    write(tmp_path / "manifest.csv", MANIFEST + rows)
    return tmp_path


def test_tidemark_series_take_what_the_manifest_says(tidemark_folder):
    series, other = load_folder(tidemark_folder)
    assert (series.source, series.name) == ("KPI", "web/a")
    assert (series.train_prefix, series.period_points, series.vus_window) == (2, 24, 40)
    assert series.timestamps_s.tolist() == [100, 160, 220]
    assert series.values.tolist() == [1, 2.5, 3]
    assert series.labels.tolist() == [False, True, False]
    assert (other.period_points, other.vus_window) == (None, 125)
    assert other.timestamps_s.tolist() == [60, 120]


@pytest.mark.parametrize(("folder", "names"), [("dev", ["web/a"]), ("extra", ["b"])])
def test_a_folder_below_the_manifest_holds_its_own_series_only(tidemark_folder, folder, names):
    assert [series.name for series in load_folder(tidemark_folder / folder)] == names


def test_a_relative_path_finds_the_manifest_one_folder_up(tidemark_folder, monkeypatch):
    monkeypatch.chdir(tidemark_folder / "dev")
    (series,) = load_folder(Path())
    assert series.name == "web/a"


def test_arrays_are_of_one_type_whatever_the_file_holds(tidemark_folder):
    for series in load_folder(tidemark_folder):
        assert (series.timestamps_s.dtype, series.values.dtype, series.labels.dtype) == ("float64", "float64", "bool")


def test_tsb_ad_says_source_and_training_in_the_name(tmp_path):
    write(tmp_path / "002_WSD_id_7_WebService_tr_2_1st_3.csv", "Data,Label\n5,0\n6,0\n7,0\n8,1\n")
    write(tmp_path / "001_Some_Set_id_12_Facility_tr_1_1st_1.csv", "Data,Label\n0.5,0\n1.5,1.0\n")
    write(tmp_path / "notes.csv", "nothing\n")
    first, second = load_folder(tmp_path)
    assert (first.source, first.train_prefix, first.labels.tolist()) == ("Some_Set", 1, [False, True])
    assert (second.source, second.name) == ("WSD", "002_WSD_id_7_WebService_tr_2_1st_3")
    assert second.values.tolist() == [5, 6, 7, 8]
    assert second.timestamps_s.tolist() == [0, 1, 2, 3]
    assert (second.train_prefix, second.period_points, second.vus_window) == (2, None, 125)


def test_a_file_with_several_channels_is_refused_by_name(tmp_path):
    write(tmp_path / "001_SMD_id_1_Facility_tr_2_1st_3.csv", "cpu,memory,Label\n5,1,0\n")
    with pytest.raises(ValueError, match=r"001_SMD.*holds the columns cpu, memory, Label. Expected are Data, Label"):
        load_folder(tmp_path)


def test_nab_labels_its_windows_with_both_ends(tmp_path):
    hours = [f"2014-04-01 {hour:02}:00:00,{hour}" for hour in range(20)]
    write(tmp_path / "data" / "realTweets" / "some.csv", "timestamp,value\n" + "\n".join(hours) + "\n")
    write(tmp_path / "data" / "flat" / "none.csv", "timestamp,value\n" + "\n".join(hours * 300) + "\n")
    spans = [
        ["2014-04-01 03:00:00.000000", "2014-04-01 05:00:00.000000"],
        ["2014-04-01 18:30:00", "2014-04-02 00:00:00"],
    ]
    windows = {"realTweets/some.csv": spans, "flat/none.csv": []}
    write(tmp_path / "labels" / "combined_windows.json", json.dumps(windows))
    some, none = load_folder(tmp_path)
    assert (some.source, some.name, some.train_prefix) == ("NAB", "realTweets/some", 3)
    assert np.flatnonzero(some.labels).tolist() == [3, 4, 5, 19]
    assert np.diff(some.timestamps_s).tolist() == [3600] * 19
    assert some.timestamps_s[0] == 1396310400
    assert (none.labels.sum(), none.train_prefix) == (0, 750)


@pytest.mark.parametrize("separator", ["\n", "  "])
def test_ucr_says_training_and_anomaly_in_the_name(tmp_path, separator):
    values = separator.join(f"{i:.7e}" for i in range(10))
    write(tmp_path / "004_UCR_Anomaly_DISTORTED_BIDMC1_4_6_8.txt", f" {values}\n")
    (series,) = load_folder(tmp_path)
    assert (series.source, series.name) == ("UCR", "004_UCR_Anomaly_DISTORTED_BIDMC1_4_6_8")
    assert series.values.tolist() == list(range(10))
    assert np.flatnonzero(series.labels).tolist() == [6, 7]
    assert (series.train_prefix, series.period_points) == (4, None)


@pytest.mark.parametrize("files", [{}, {"a.csv": "timestamp,value\n1,2\n"}, {"manifest.csv": "a,b\n1,2\n"}])
def test_an_unknown_layout_is_told_what_was_expected(tmp_path, files):
    for name, text in files.items():
        write(tmp_path / "folder" / name, text)
    with pytest.raises(ValueError, match=r"(?s)No labelled series in .*folder.*Tidemark.*TSB-AD.*NAB.*UCR"):
        load_folder(tmp_path / "folder")


def wave(n, period, noise):
    return np.sin(2 * np.pi * np.arange(n) / period) + noise * np.random.default_rng(n).normal(size=n)


# What find_length_rank of TSB_AD.utils.slidingWindows, TSB-AD 1.5 from PyPI, gives for these waves.
@pytest.mark.parametrize(
    ("n", "period", "noise", "window"),
    [
        (1000, 50, 0.3, 50),
        (2500, 288, 0.5, 6),
        (800, 5, 0.1, 125),
        (800, 6, 0.1, 6),
        (3000, 301, 0.1, 301),
        (6000, 304, 0, 125),
        (25000, 40, 1, 120),
        (300, 40, 2, 41),
        (200, 90, 0, 88),
        (3, 50, 0, 125),
        (8, 50, 1, 125),
    ],
)
def test_the_vus_window_is_that_of_the_reference(n, period, noise, window):
    assert find_vus_window(wave(n, period, noise)) == window


@pytest.mark.parametrize("values", [np.ones(500), np.arange(500.0)], ids=["constant", "trend"])
def test_a_series_without_a_period_has_the_default_window(values):
    assert find_vus_window(values) == 125
