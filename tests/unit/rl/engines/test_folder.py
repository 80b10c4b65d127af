"""One run in a folder at a time."""

import pytest

from weft.core.errors import FileError
from weft.rl.engines.folder import alone_in


def test_a_second_run_is_kept_out_until_the_first_ends(tmp_path):
    with alone_in(tmp_path / "run"):
        with (
            pytest.raises(FileError, match="no other run is writing to"),
            alone_in(tmp_path / "run"),
        ):
            pass
        with alone_in(tmp_path / "other"):
            pass
    with alone_in(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match="can be written to"),
        alone_in(tmp_path / "file" / "run"),
    ):
        pass
