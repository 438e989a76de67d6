"""The command line against the real service and worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nirvana import lab
from nirvana.cli.up import Registry
from nirvana.client.rest import Client
from nirvana.format.ticket import Ticket
from nirvana.verification.protocol import ARMS, BASELINES
from tests.live.conftest import Nirvana


def test_push_search_show_and_pull(
    nirvana: Nirvana, owner: str, levels: list[Ticket], tmp_path: Path
) -> None:
    levels[2].write(tmp_path / "small.ticket")
    code, out, _ = nirvana("push", str(tmp_path / "small.ticket"), "--name", "by-hand", "--json")
    assert (code, json.loads(out)["digest"]) == (0, levels[2].digest)
    code, out, _ = nirvana("search", "--task", "digits", "--json")
    assert "by-hand" in [hit["name"] for hit in json.loads(out)["items"]]
    code, out, _ = nirvana("show", f"{owner}/by-hand", "--json")
    assert json.loads(out)["layers"][0]["name"] == "fc1.weight"
    assert f"{owner}/by-hand" in nirvana("show", f"{owner}/by-hand")[1]
    code, out, _ = nirvana("show", levels[2].digest)
    assert (code, f"{owner}/by-hand" in out) == (0, True), "a digest's listings"
    code, out, _ = nirvana("show", levels[2].digest, "--json")
    assert json.loads(out)["listings"][0]["is_first"]
    code, out, _ = nirvana("pull", f"{owner}/by-hand", "--out", str(tmp_path / "pulled.ticket"), "--json")
    assert code == 0
    assert (tmp_path / "pulled.ticket").read_bytes() == levels[2].to_bytes()


def test_a_task_is_pushed_pulled_and_searched_on_and_its_seal_stays_there(
    nirvana: Nirvana, client: Client, owner: str, tmp_path: Path
) -> None:
    rows = [f"{row % 7},{row % 2 + row % 5 / 10},{'ab'[row % 2]}" for row in range(160)]
    (tmp_path / "t.csv").write_text("\n".join(["u,v,kind", *rows]))
    code, out, talk = nirvana("tasks", "push", "pairs", "--file", str(tmp_path / "t.csv"))
    assert (code, "license" in talk) == (2, True)
    options = ("--license", "CC0-1.0", "--title", "Pairs", "--drop", "u", "--json")
    code, out, _ = nirvana("tasks", "push", "pairs", "--file", str(tmp_path / "t.csv"), *options)
    assert code == 0
    made, name = json.loads(out), f"{owner}/pairs"
    assert (made["name"], made["input_shape"], made["seal"]["rows"]) == (name, [1], 32)
    assert name in [task["name"] for task in client.tasks(owner)]

    code, out, _ = nirvana("tasks", "pull", name, "--json")
    assert (code, json.loads(out)["seal"]) == (0, made["seal"])
    found = lab.find(name, "mlp-4", levels=1, recipe={"steps": 40, "evaluate_every": 20, "batch_size": 8})
    client.publish(found.tickets[-1].to_bytes(), "of-pairs")
    code, out, _ = nirvana("tasks", "board", name, "--brought-in")
    assert (code, f"{owner}/of-pairs" in out, "brought-in" in out) == (0, True, True)
    assert json.loads(nirvana("tasks", "frontier", name, "--json")[1])["items"] == []
    assert nirvana("tasks", "frontier", "digits")[0] == 0
    assert json.loads(nirvana("tasks", "croissant", name)[1])["creator"]["name"] == owner
    found.tickets[-1].write(tmp_path / "x.ticket")
    code, _, talk = nirvana("verify", "--local", str(tmp_path / "x.ticket"))
    assert (code, "only a registry that holds them" in " ".join(talk.split())) == (3, True), talk

    nirvana("tasks", "add", str(tmp_path / "t.csv"), "--name", "mine", "--license", "CC0-1.0", "--json")
    code, out, _ = nirvana("tasks", "push", "mine", "--json")
    assert code == 0
    assert json.loads(out)["sizes"] == {"train": 96, "validation": 32, "test": 16}
    assert json.loads(out)["seal"]["rows"] == 16
    assert nirvana("tasks", "yank", f"{owner}/mine", "--reason", "duplicate")[0] == 0
    assert f"{owner}/mine" not in [task["name"] for task in client.tasks(owner)]
    client.unyank_task(f"{owner}/mine")
    client.delete_task(f"{owner}/mine")
    assert nirvana("tasks", "pull", f"{owner}/mine")[0] != 0
    assert nirvana("tasks", "pull", "digits")[0] != 0
    nirvana("tasks", "rm", name)


def test_two_tickets_are_compared_and_one_is_cited(
    nirvana: Nirvana, owner: str, levels: list[Ticket], tmp_path: Path
) -> None:
    levels[1].write(tmp_path / "one.ticket")
    nirvana("push", str(tmp_path / "one.ticket"), "--name", "compared", "--json")
    code, out, _ = nirvana("diff", f"{owner}/compared", str(tmp_path / "one.ticket"), "--json")
    assert (code, json.loads(out)["jaccard"]) == (0, 1)
    assert "beyond chance" in nirvana("diff", f"{owner}/compared", str(tmp_path / "one.ticket"))[1]
    code, out, _ = nirvana("cite", f"{owner}/compared", "--format", "csl")
    assert json.loads(out)[0]["URL"].endswith(f"/tickets/{owner}/compared")
    code, _, talk = nirvana("verify-signature", f"{owner}/compared")
    assert (code, "no verification yet" in talk) == (3, True)


def test_old_headlines_are_measured_again_from_the_command_line(registry: Registry) -> None:
    command = [sys.executable, "-m", "nirvana.cli", "admin", "reverify", "--task", "digits"]
    done = subprocess.run([*command, "--dry-run", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"dry_run": True, "enqueued": 0, "items": []}
    assert done.stderr == "0 of 0 verifications would be enqueued\n"
    assert subprocess.run([*command, "--limit", "0"], capture_output=True, check=False).returncode == 2


def test_search_filters_as_the_service_does(nirvana: Nirvana, levels: list[Ticket], tmp_path: Path) -> None:
    for number in (0, 2):
        levels[number].write(tmp_path / f"{number}.ticket")
        nirvana("push", str(tmp_path / f"{number}.ticket"), "--name", f"filtered-{number}")
    for options, names in (
        (("--max-kept", str(levels[2].kept)), {"filtered-2"}),
        (("--min-density", "0.9", "--init", "seeded", "--min-created-at", "2020-01-01"), {"filtered-0"}),
        (("--license", levels[0].license, "--include-yanked"), {"filtered-0", "filtered-2"}),
        (("--max-created-at", "2020-01-01"), set()),
        (("--tag", "small"), set()),
        (("--min-rewind-step", "1000000"), set()),
    ):
        code, out, _ = nirvana("search", "filtered", *options, "--sort", "kept", "--order", "asc", "--json")
        assert code == 0
        assert {hit["name"] for hit in json.loads(out)["items"]} == names, options


def test_a_name_that_is_taken_leaves_with_4(nirvana: Nirvana, levels: list[Ticket], tmp_path: Path) -> None:
    for number in (1, 2):
        levels[number].write(tmp_path / f"{number}.ticket")
    assert nirvana("push", str(tmp_path / "1.ticket"), "--name", "clash")[0] == 0
    code, out, err = nirvana("push", str(tmp_path / "2.ticket"), "--name", "clash", "--json")
    assert (code, json.loads(out)["code"]) == (4, "name-taken")
    assert len(err.splitlines()) == 1


def test_a_pickle_is_never_sent(nirvana: Nirvana, tmp_path: Path) -> None:
    (tmp_path / "evil.ticket").write_bytes(b"\x80\x04\x95...")
    code, _, err = nirvana("push", str(tmp_path / "evil.ticket"), "--name", "evil")
    assert code == 4
    assert err.startswith("nirvana: ")


def test_an_unknown_ticket_leaves_with_3(nirvana: Nirvana) -> None:
    assert nirvana("show", "nobody/nothing")[0] == 3
    assert nirvana("pull", "nobody/nothing")[0] == 3
    assert nirvana("verify", "nobody/nothing")[0] == 3


def test_a_wrong_token_leaves_with_4(nirvana: Nirvana, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIRVANA_TOKEN", "nvn_wrong")
    assert nirvana("whoami")[0] == 4


def test_login_keeps_a_token_that_the_service_knows(
    nirvana: Nirvana, client: Client, owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = client.create_token(name="login", scopes=["read"])["secret"]
    monkeypatch.setenv("NIRVANA_HOME", str(tmp_path))
    assert nirvana("login", "--token", "nvn_wrong")[0] == 4
    assert not (tmp_path / "token").exists()
    code, out, err = nirvana("login", "--token", secret)
    assert code == 0
    assert secret not in out + err
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert nirvana("whoami")[1].strip() == owner
    assert nirvana("logout")[0] == 0
    assert nirvana("whoami")[0] == 4


def test_an_organisation_from_the_command_line(
    nirvana: Nirvana, owner: str, levels: list[Ticket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> Any:
        code, out, err = nirvana(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    run("organisations", "create", "vision-lab")
    levels[1].write(tmp_path / "one.ticket")
    pushed = run("push", str(tmp_path / "one.ticket"), "--name", "vision-lab/one")
    assert (pushed["owner"], pushed["name"]) == ("vision-lab", "one")
    with Client() as client:
        guest = client.create_account("guest-1")["token"]["secret"]
    run("organisations", "invite", "vision-lab", "guest-1", "--role", "writer")
    with monkeypatch.context() as patch:
        patch.setenv("NIRVANA_TOKEN", guest)
        assert nirvana("push", str(tmp_path / "one.ticket"), "--name", "vision-lab/two")[0] == 4
        assert run("organisations", "ls")["invitations"][0]["organisation"] == "vision-lab"
        run("organisations", "decline", "vision-lab")
    run("organisations", "invite", "vision-lab", "guest-1")
    with monkeypatch.context() as patch:
        patch.setenv("NIRVANA_TOKEN", guest)
        assert run("organisations", "accept", "vision-lab")["role"] == "reader"
    assert run("organisations", "role", "vision-lab", "guest-1", "writer")["role"] == "writer"
    members = run("organisations", "members", "vision-lab")["items"]
    assert [(one["account"], one["role"]) for one in members] == [("guest-1", "writer"), (owner, "owner")]
    assert "vision-lab" in nirvana("organisations", "ls")[1]
    run("organisations", "remove", "vision-lab", "guest-1")
    code, _, err = nirvana("organisations", "leave", "vision-lab")
    assert (code, "only owner" in err) == (4, True)


def test_verify_waits_for_the_services_verdict(
    nirvana: Nirvana, owner: str, levels: list[Ticket], client: Client, tmp_path: Path
) -> None:
    client.publish(levels[2].to_bytes(), "judged")
    code, out, _ = nirvana("verify", f"{owner}/judged", "--replicates", "2", "--json")
    verdict = json.loads(out)
    assert {"verdict", "protocol", "arms", "tests", "margin", "cost"} <= set(verdict)
    assert set(verdict["arms"]) == set(ARMS)
    assert {len(values) for arm, values in verdict["arms"].items() if arm not in BASELINES} == {2}
    assert all(len(verdict["arms"][arm]) >= 4 for arm in BASELINES)
    assert code == (0 if verdict["verdict"] in ("WINNING", "MATCHING") else 6)
    assert client.ticket(f"{owner}/judged")["verdict"] == verdict["verdict"]
    kept, keys = tmp_path / "signed.json", tmp_path / "keys.json"
    keys.write_text(json.dumps(client.keys()))
    code, out, _ = nirvana("verify-signature", f"{owner}/judged", "--out", str(kept))
    assert (code, f"is {verdict['verdict']} by " in out) == (0, True)
    code, out, _ = nirvana("verify-signature", str(kept), "--keys", str(keys), "--json")
    assert (code, json.loads(out)["evaluation"]["arms"]) == (0, verdict["arms"])
    kept.write_text(kept.read_text().replace('"signature": "', '"signature": "A'))
    code, _, talk = nirvana("verify-signature", str(kept))
    assert (code, "no key of the registry signed this" in talk) == (4, True)
    assert nirvana("verify-signature", str(keys))[0] == 4


def test_verify_tops_up_at_the_service(
    nirvana: Nirvana, owner: str, levels: list[Ticket], client: Client
) -> None:
    client.publish(levels[1].to_bytes(), "topped")
    arguments = ("verify", f"{owner}/topped", "--replicates", "2", "--max-replicates")
    code, out, _ = nirvana(*arguments, "3", "--json")
    verdict = json.loads(out)
    assert verdict["looks"][0]["n"] == 2
    assert verdict["replicates"] == verdict["looks"][-1]["n"] == len(verdict["arms"]["reinit"])
    assert client.job(verdict["job_id"])["spec"]["max_replicates"] == 3
    code, _, err = nirvana(*arguments, "9")
    assert code == 2
    assert "max_replicates is 9, expected an integer from 2 to 8" in err


def test_jobs_are_listed_shown_and_followed(nirvana: Nirvana, client: Client) -> None:
    spec = {"task": "digits", "architecture": "mlp-4", "levels": 1, "recipe": {"steps": 20}}
    job = client.submit_job("prune", spec)["id"]
    _, out, _ = nirvana("jobs", "logs", job, "--json")
    assert json.loads(out.splitlines()[-1])["data"]["state"] == "succeeded"
    assert job in [item["id"] for item in json.loads(nirvana("jobs", "ls", "--json")[1])["items"]]
    assert json.loads(nirvana("jobs", "show", job, "--json")[1])["state"] == "succeeded"
    assert nirvana("jobs", "cancel", job)[0] == 4
    assert nirvana("jobs", "show", "no-such-job")[0] == 3


def test_ctrl_c_leaves_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"steps": 5000}')
    arguments = ["--task", "digits", "--architecture", "lenet-300-100", "--levels", "20"]
    arguments += ["--recipe", str(recipe), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "nirvana.cli", "find", *arguments]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    assert process.stderr is not None
    assert "level 0" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 130
    assert "Traceback" not in said


def test_attest_runs_the_search_again_and_says_what_came_out(
    nirvana: Nirvana, owner: str, client: Client
) -> None:
    recipe: dict[str, Any] = {"steps": 40, "evaluate_every": 20}
    ticket = lab.find("digits", "mlp-8", levels=1, seed=11, recipe=recipe).tickets[-1]
    client.publish(ticket.to_bytes(), "attestable")
    name = f"{owner}/attestable"
    code, out, _ = nirvana("attest", name)
    assert code == 0
    assert out.startswith(f"{name} is attested: the registry's worker ran its search again and got it")
    code, out, _ = nirvana("attest", name, "--json")
    assert (code, json.loads(out)["outcome"]) == (0, "same")
    assert nirvana("attest", ticket.digest, "--json")[1] == out, "a digest means its first listing"
    assert name in [f"{one['owner']}/{one['name']}" for one in client.search(origin="attested")]
