"""Videos side by side."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from weft.core.errors import InputError
from weft.report.frames import frames_section, likeness_db


def film(frames, height=4, width=6, value=0.5):
    return np.full((frames, height, width, 3), value, dtype=np.float32)


def pictures_of(section):
    found = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', section.body)
    return {name: Image.open(io.BytesIO(base64.b64decode(text))) for text, name in found}


def test_some_frames_of_each_video_are_shown_from_the_first_to_the_last():
    section = frames_section({"full": film(81), "accelerated": film(81, value=0.6)})
    shown = pictures_of(section)
    numbers = sorted({int(name.split("frame ")[1]) for name in shown})
    assert len(shown) == 12 and (numbers[0], numbers[-1]) == (0, 80)
    assert shown["accelerated, frame 80"].getpixel((0, 0)) == (153, 153, 153)
    assert section.text == "accelerated is 20.0 dB like full."


def test_wide_frames_are_made_smaller_by_means():
    wide = film(1, height=4, width=960)
    wide[:, :, ::2] = 1.0
    wide[:, :, 1::2] = 0.0
    (shown,) = pictures_of(frames_section({"one": wide})).values()
    assert shown.size == (480, 2)
    assert shown.getpixel((5, 1)) == (128, 128, 128)


def test_videos_of_different_length_are_refused():
    with pytest.raises(InputError, match="full: 3, fast: 2"):
        frames_section({"full": film(3), "fast": film(2)})


def test_equal_videos_are_as_alike_as_can_be():
    assert likeness_db(film(2), film(2)) == pytest.approx(120.0)
