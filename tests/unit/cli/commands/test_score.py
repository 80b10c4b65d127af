import json

from weft.cli.main import main
from weft.parallel.serialize import load_plan


def test_a_plan_by_hand_is_priced_and_can_be_kept(recipe, pair, tmp_path, capsys):
    path = tmp_path / "ddp.json"
    assert main(["score", recipe, "--machine", pair, "--dp", "2", "--json", "-o", str(path)]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["level"] == "expert"
    assert plain["step_s"] > 0
    assert load_plan(path).prediction.step_s == plain["step_s"]


def test_splitting_parameters_needs_less_state(recipe, pair, capsys):
    def state_bytes(*options):
        assert main(["score", recipe, "--machine", pair, "--dp", "2", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["state_bytes"]

    assert state_bytes("--fsdp") < state_bytes()


def test_devices_that_do_not_match_the_machine_are_refused(recipe, pair, capsys):
    assert main(["score", recipe, "--machine", pair, "--dp", "3"]) == 2
    assert "3" in capsys.readouterr().err


def test_a_pipeline_keeps_pinned_stages(recipe, pair, capsys):
    arguments = ["score", recipe, "--machine", pair, "--pp", "2"]
    assert main([*arguments, "--pin", "0=stage 0", "--pin", "1=stage 1"]) == 0
    assert "2 stages" in capsys.readouterr().out
    assert main([*arguments, "--pin", "0=stage 1", "--pin", "2=stage 0"]) == 2
    assert "0=stage 1 and 2=stage 0" in capsys.readouterr().err


def test_degrees_that_break_a_pin_are_refused(recipe, pair, capsys):
    arguments = ["score", recipe, "--machine", pair, "--dp", "2", "--pin", "0.weight=R"]
    assert main(arguments) == 0
    assert main([*arguments, "--fsdp"]) == 2
    assert "need  0.weight=R" in capsys.readouterr().err
