import json

from weft.cli.main import main
from weft.parallel.plan_files import load_plan as load_any
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


def test_groups_of_a_pipeline_have_degrees_of_their_own(recipe, three, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    common = ["score", recipe, "--machine", three, "--pp", "2", "--json"]
    assert main([*common, "--dp", "1,2", "-o", str(plan)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["group_devices"] == [1, 2]
    assert found["meshes"] == [[1], [2]]
    assert load_any(plan).groups_in_words == "groups of one device and of 2 devices as 2"
    assert main([*common, "--dp", "1,2,1"]) == 2
    assert "one for each of 2" in capsys.readouterr().err
    assert main([*common, "--dp", "1,many"]) == 2
    assert "1,many" in capsys.readouterr().err
    assert main([*common, "--dp", "2,2"]) == 2
    assert "at most 3 devices" in capsys.readouterr().err


def test_wide_layers_are_cut_in_one_stage_alone(recipe, pair, capsys):
    recipe = recipe.replace(":line", ":wide")
    common = ["score", recipe, "--machine", pair, "--tp", "2", "--wide", "--json"]
    assert main(common) == 0
    assert json.loads(capsys.readouterr().out)["mesh"] == [2]
    assert main([*common, "--pp", "2"]) == 2
    assert "--wide" in capsys.readouterr().err
    assert main(["score", recipe, "--machine", pair, "--dp", "2", "--wide"]) == 2
    assert "a tensor degree above 1" in capsys.readouterr().err


def test_groups_of_a_pipeline_stand_where_it_is_said(recipe, three, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    common = ["score", recipe, "--machine", three, "--pp", "2", "--dp", "1,2", "--json"]
    assert main([*common, "--standing", "1,0", "-o", str(plan)]) == 0
    assert json.loads(capsys.readouterr().out)["standing"] == [1, 0]
    assert load_any(plan).ranks_of(0) == range(2, 3)
    assert main([*common, "--standing", "0,0"]) == 2
    assert "each block of ranks from 0 to 1 once" in capsys.readouterr().err
    assert main(["score", recipe, "--machine", three, "--standing", "1,0"]) == 2
    assert "--pp 2 --standing 1,0" in capsys.readouterr().err


def test_degrees_that_break_a_pin_are_refused(recipe, pair, capsys):
    arguments = ["score", recipe, "--machine", pair, "--dp", "2", "--pin", "0.weight=R"]
    assert main(arguments) == 0
    assert main([*arguments, "--fsdp"]) == 2
    assert "need  0.weight=R" in capsys.readouterr().err


def test_stages_of_zero_differ_in_what_they_split(recipe, pair, capsys):
    def state_bytes(*options):
        assert main(["score", recipe, "--machine", pair, "--dp", "2", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)["state_bytes"]

    assert state_bytes("--fsdp") == state_bytes("--zero", "3") < state_bytes("--zero", "1")


def placements(tmp_path, *entries):
    path = tmp_path / "placements.json"
    path.write_text(json.dumps({"weft_placements": 1, "mesh": [2], "entries": entries}))
    return str(path)


BATCH = {"input": "batch.*", "placements": ["S(0)"]}


def test_placements_from_a_file_are_priced_and_kept_as_a_plan(recipe, pair, tmp_path, capsys):
    path, plan = placements(tmp_path, BATCH), tmp_path / "plan.json"
    common = ["score", recipe, "--machine", pair, "--json"]
    assert main([*common, "--placements", path, "-o", str(plan)]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert main([*common, "--dp", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["step_s"] == plain["step_s"]
    assert load_plan(plan).prediction.step_s == plain["step_s"]


def test_an_entry_that_names_nothing_is_named(recipe, pair, tmp_path, capsys):
    path = placements(tmp_path, BATCH, {"module": "nothing", "placements": ["R"]})
    assert main(["score", recipe, "--machine", pair, "--placements", path]) == 2
    assert "entry 2" in capsys.readouterr().err


def test_placements_and_degrees_exclude_each_other(recipe, pair, tmp_path, capsys):
    options = ["--placements", placements(tmp_path, BATCH), "--zero", "1"]
    assert main(["score", recipe, "--machine", pair, *options]) == 2
    assert "--zero" in capsys.readouterr().err


def test_stages_and_degrees_go_together(recipe, pair, tmp_path, capsys):
    options = ["--pp", "2", "--micro-batches", "2", "--zero", "1", "--recompute", "cheap"]
    assert main(["score", recipe, "--machine", pair, "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["step_s"] > 0


def test_a_step_in_micro_batches_needs_no_stages(recipe, pair, capsys):
    common = ["score", recipe, "--machine", pair, "--json", "--dp", "2"]
    assert main([*common, "--micro-batches", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["micro_batches"] == 2
    assert main([*common, "--schedule", "gpipe"]) == 2
    assert "--micro-batches" in capsys.readouterr().err
