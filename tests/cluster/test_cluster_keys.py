"""`psephos keys`: what it writes is private, what it shows is public, and it takes keys to and from other programs."""

import json
import stat
from pathlib import Path

import pytest
from eth_account import Account

from cluster.cli import main
from serving.keyfiles import load_key

SECRET = bytes(range(1, 33))
ADDRESS = str(Account.from_key(SECRET).address).lower()


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text("open sesame\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def hex_key(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.key"
    path.write_text(SECRET.hex())
    path.chmod(0o600)
    return path


def test_a_new_keystore_is_used_with_its_password_file(
    tmp_path: Path, password: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "v"
    assert main(["keys", "new", "--folder", str(folder), "--password-file", str(password)]) == 0
    out, err = capsys.readouterr()
    key = load_key(folder / "node.key", password)
    assert out == f"0x{key.address.hex()}\n"
    assert f'key_password_file = "{password}"' in err
    assert main(["keys", "list", str(tmp_path)]) == 0
    listing = capsys.readouterr().out
    assert listing.split() == [f"0x{key.address.hex()}", "keystore", str(folder / "node.key")]
    for text in (out, err, listing):
        assert key.secret.hex() not in text
        assert "sesame" not in text


def test_import_from_geth_and_export_to_it(tmp_path: Path, password: Path, capsys: pytest.CaptureFixture[str]) -> None:
    geths = tmp_path / "UTC--2026-01-01T00-00-00.000000000Z--1"
    geths.write_text(json.dumps(Account.encrypt(SECRET, "open sesame", iterations=2)))
    geths.chmod(0o600)
    folder = tmp_path / "gateway"
    arguments = ["keys", "import", str(geths), "--password-file", str(password)]
    assert main([*arguments, "--folder", str(folder), "--kind", "gateway"]) == 0
    assert capsys.readouterr().out.strip() == ADDRESS
    assert load_key(folder / "gateway.key").secret == SECRET
    assert (folder / "master.secret").is_file()
    assert not (folder / "guard").exists()
    out = tmp_path / "exported.json"
    assert (
        main(["keys", "export", str(folder / "gateway.key"), "--out", str(out), "--new-password-file", str(password)])
        == 0
    )
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert Account.decrypt(json.loads(out.read_text()), "open sesame") == SECRET
    assert SECRET.hex() not in "".join(capsys.readouterr())


def test_export_shows_a_key_only_where_asked(tmp_path: Path, hex_key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["keys", "export", str(hex_key)])
    assert main(["keys", "export", str(hex_key), "--out", str(tmp_path / "copy")]) == 0
    assert SECRET.hex() not in "".join(capsys.readouterr())
    assert load_key(tmp_path / "copy").secret == SECRET
    assert main(["keys", "export", str(hex_key), "--out", str(tmp_path / "copy")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["keys", "export", str(hex_key), "--stdout"]) == 0
    assert capsys.readouterr().out == f"0x{SECRET.hex()}\n"


def test_a_key_is_imported_as_it_is_and_never_over_another(
    tmp_path: Path, hex_key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["keys", "import", str(hex_key), "--folder", str(tmp_path / "v")]
    assert main(arguments) == 0
    assert main(arguments) == 1
    assert "exists already and is left as it is" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["node.key"]


def test_what_cannot_be_used_is_named(tmp_path: Path, hex_key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hex_key.chmod(0o644)
    assert main(["keys", "list", str(tmp_path)]) == 1
    assert f"chmod 600 {hex_key}" in capsys.readouterr().out
    for verb in (["import"], ["export", "--stdout"]):
        assert main(["keys", *verb, str(hex_key)]) == 1
        out, err = capsys.readouterr()
        assert "chmod 600" in err
        assert SECRET.hex() not in out + err
    assert main(["keys", "list", str(tmp_path / "nowhere")]) == 1
    assert main(["keys", "import", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is not there; `psephos keys new` makes one" in capsys.readouterr().err
