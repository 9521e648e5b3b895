import pytest

from videosr.media.timecode import advance


def counted(nominal, dropped):
    """The labels of half an hour, one after the other: at each minute but the tenth the first labels are left out."""
    for seconds in range(1800):
        left_out = dropped if seconds % 60 == 0 and seconds % 600 else 0
        for frame in range(left_out, nominal):
            yield f"00:{seconds // 60:02}:{seconds % 60:02}{';' if dropped else ':'}{frame:02}"


@pytest.mark.parametrize(("nominal", "dropped"), [(24, 0), (25, 0), (30, 0), (30, 2), (60, 4)])
def test_labels_are_counted_as_they_are_one_by_one(nominal, dropped):
    labels = list(counted(nominal, dropped))
    assert [advance(labels[0], i, nominal) for i in range(len(labels))] == labels
    for i in range(0, len(labels) - 1, 997):
        assert advance(labels[i], 1, nominal) == labels[i + 1]
        assert advance(labels[i], len(labels) - 1 - i, nominal) == labels[-1]


def test_a_day_of_drop_frame_labels():
    assert advance("00:00:00;00", 2_589_408 - 1, 30) == "23:59:59;29"  # SMPTE ST 12-1: frames of a day
    assert advance("23:59:59;29", 1, 30) == "00:00:00;00"
    assert advance("23:59:59.29", 1, 30) == "00:00:00.00"
    assert advance("00:00:00:00", 100, 120) == "00:00:00:100"


@pytest.mark.parametrize(
    ("label", "nominal"),
    [
        ("", 24),
        ("later", 24),
        ("01:00:00", 24),
        ("01:00:00:24", 24),
        ("01:60:00:00", 24),
        ("24:00:00:00", 24),
        ("00:01:00;00", 30),  # left out
        ("00:01:00;03", 60),
        ("01:00:00;00", 24),
        ("01:00:00;00", 25),
        ("01:00:00;00", 10),
        ("01:00:00:00", 0),
    ],
)
def test_what_is_no_label_is_not_counted(label, nominal):
    assert advance(label, 1, nominal) is None
