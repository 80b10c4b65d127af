"""PNG files of our own making, read by somebody else's code."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from weft.core.errors import InputError
from weft.report.png import embedded, png


def test_another_reader_finds_every_pixel():
    picture = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    found = Image.open(io.BytesIO(png(picture)))
    assert found.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(found), picture)


def test_a_page_holds_the_picture_itself():
    picture = np.full((2, 2, 3), 9, dtype=np.uint8)
    text = embedded(picture, 'a "frame"')
    assert 'alt="a &quot;frame&quot;"' in text
    data = base64.b64decode(text.split("base64,")[1].split('"')[0])
    assert data == png(picture)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_other_shapes_are_refused_by_name(shape):
    with pytest.raises(InputError, match=r"shape \["):
        png(np.zeros(shape, dtype=np.uint8))
