import pytest

from weft.cli.main import main


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999"])
def test_a_port_that_there_is_not_is_refused(port, tmp_path, capsys):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("cap: 5 usd")
    asked = ["--upstream", "http://127.0.0.1:9", "--budgets", str(budgets), "--port", port]
    assert main(["tokens", "serve", *asked]) == 2
    assert "a port from 1 to 65535" in capsys.readouterr().err
    assert not budgets.with_suffix(".db").exists()


def test_a_file_that_is_no_text_gets_no_key(tmp_path, capsys):
    path = tmp_path / "keys.yaml"
    path.write_bytes(b"\xff\xfe")
    assert main(["tokens", "serve", "--keys", str(path), "--new-key", "coder"]) == 2
    assert "a file of keys" in capsys.readouterr().err


def test_caps_in_dollars_need_prices(tmp_path, capsys):
    budgets = tmp_path / "budgets.yaml"
    budgets.write_text("cap: 5 calls\nnodes: {a: {cap: 1 usd}}")
    asked = ["--upstream", "http://127.0.0.1:9", "--budgets", str(budgets)]
    assert main(["tokens", "serve", *asked]) == 2
    assert "need  --prices" in capsys.readouterr().err
    assert not budgets.with_suffix(".db").exists()
