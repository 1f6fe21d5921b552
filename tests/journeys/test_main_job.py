"""From rows to a model that answers: run, run again, adapt, load elsewhere, serve."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from .conftest import RECIPE, Cli, call, command, environment, rows, write_rows


def models(folder: Path) -> list[dict[str, object]]:
    listed = call("models", "--json", workspace=folder / "work", cwd=folder)
    assert listed.returncode == 0, listed.stderr
    result: list[dict[str, object]] = json.loads(listed.stdout)
    return result


def test_a_run_ends_in_a_registered_version_with_figures(finished: Path) -> None:
    (version,) = models(finished)
    assert version["ref"] == "tiny@1"
    assert version["aliases"] == ["champion"]
    assert {"perplexity", "rougeL", "bleu", "facts"} <= set(version["metrics"])  # type: ignore[call-overload]
    assert len(str(version["weights_digest"])) == 64


def test_the_page_of_a_run_shows_what_was_learned_and_how_the_test_rows_are_covered(finished: Path) -> None:
    said = json.loads(call("run", "recipe.yaml", "--json", workspace=finished / "work", cwd=finished).stdout)
    page = finished / "work" / "reports" / "tiny" / "data.html"
    kept = json.loads(page.with_suffix(".json").read_text())
    assert kept["ledger"] == said["ledger"]
    assert kept["coverage"]["num_targets"] == kept["splits"]["rows"]["test"]
    assert kept["coverage"]["num_rows"] == kept["splits"]["rows"]["train"]
    assert "mixing" not in kept  # there is one source
    assert '<section id="coverage"' in page.read_text()


def test_running_again_computes_nothing_and_keeps_the_version(finished: Path) -> None:
    before = models(finished)
    artefacts = sorted((finished / "work" / "artefacts").iterdir())
    again = call("run", "recipe.yaml", "--json", workspace=finished / "work", cwd=finished)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["ref"] == "tiny@1"
    assert models(finished) == before
    assert sorted((finished / "work" / "artefacts").iterdir()) == artefacts


def test_two_uninterrupted_runs_give_the_same_weights(finished: Path, cli: Cli, project: Path) -> None:
    assert cli("run", "recipe.yaml").returncode == 0
    assert models(project)[0]["weights_digest"] == models(finished)[0]["weights_digest"]


def test_a_changed_setting_makes_a_new_version_and_reuses_the_data(cli: Cli, project: Path) -> None:
    assert cli("run", "recipe.yaml", "--set", "train.max_steps=4").returncode == 0
    again = cli("run", "recipe.yaml", "--set", "train.max_steps=5")
    assert again.returncode == 0, again.stderr
    data_lines = [line for line in again.stderr.splitlines() if "train 6" in line or "train 7" in line]
    assert data_lines
    assert "(as before)" in data_lines[0]
    assert [version["ref"] for version in models(project)] == ["tiny@1", "tiny@2"]


def test_killed_at_random_moments_the_run_goes_on_to_the_same_weights(finished: Path, project: Path) -> None:
    """Five SIGKILLs spread from start-up over data and training to evaluation, then one run to the end."""
    workspace = project / "work"
    for seconds in (0.9, 2.0, 3.0, 4.0, 5.5):
        process = subprocess.Popen(
            command("run", "recipe.yaml"),
            cwd=project,
            env=environment(workspace),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = call("run", "recipe.yaml", workspace=workspace, cwd=project)
    assert done.returncode == 0, done.stderr
    (version,) = models(project)
    assert version["weights_digest"] == models(finished)[0]["weights_digest"]
    assert call("doctor", "--repair", workspace=workspace, cwd=project).returncode in (0, 1)
    assert call("doctor", workspace=workspace, cwd=project).returncode == 0


def test_ctrl_c_saves_and_the_same_command_goes_on(project: Path) -> None:
    workspace = project / "work"
    long = ("run", "recipe.yaml", "--set", "train.epochs=400")
    process = subprocess.Popen(command(*long), cwd=project, env=environment(workspace), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    jobs = workspace / "jobs"
    while not (jobs.is_dir() and any(jobs.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "nothing is lost" in said
    assert "Go on with the same command" in said
    steps = [int(path.name.removeprefix("step-")) for path in jobs.glob("*/step-*")]
    assert steps
    assert max(steps) > 0


def test_an_adapter_on_the_model_loads_with_transformers_and_peft_alone(finished: Path, project: Path, cli: Cli) -> None:
    (version,) = models(finished)
    base = finished / "work" / "artefacts" / str(version["artefact"])
    (project / "adapter.yaml").write_text(
        RECIPE.replace("name: tiny", "name: adapted")
        .replace(next(line for line in RECIPE.splitlines() if line.startswith("base:")), f"base: {base}")
        .replace("method: full", "method: lora")
        .replace("promote: always", "promote: if_better")
    )
    done = cli("run", "adapter.yaml")
    assert done.returncode == 0, done.stderr
    adapted = next(v for v in models(project) if v["name"] == "adapted")
    folder = project / "work" / "artefacts" / str(adapted["artefact"])
    code = (
        "import sys, torch, transformers, peft\n"
        "base, folder = sys.argv[1:]\n"
        "tokenizer = transformers.AutoTokenizer.from_pretrained(folder)\n"
        "model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder).eval()\n"
        "ids = tokenizer.apply_chat_template([{'role': 'user', 'content': 'How much is the hat?'}], add_generation_prompt=True,"
        " return_tensors='pt', return_dict=True)['input_ids']\n"
        "assert 'tunesmith' not in sys.modules\n"
        "with torch.no_grad(): print(ids.tolist()[0]); print(model(ids).logits[0, -1].tolist())\n"
    )
    plain = subprocess.run([sys.executable, "-c", code, str(base), str(folder)], capture_output=True, text=True, check=True)
    ids, logits = (json.loads(line) for line in plain.stdout.strip().splitlines())

    import torch

    from tunesmith.pipeline import open_version
    from tunesmith.records import Message, Role
    from tunesmith.store import Store

    opened = open_version("adapted", store=Store(project / "work"))
    assert opened._chat.encode_prompt([Message(role=Role.USER, content="How much is the hat?")]) == ids
    with torch.no_grad():
        ours = opened._model(torch.tensor([ids])).logits[0, -1]
    assert torch.allclose(ours, torch.tensor(logits), atol=1e-5)


def test_the_official_client_chats_streamed_and_not(finished: Path) -> None:
    process = subprocess.Popen(
        command("serve", "tiny", "--port", "0", "--api-key", "secret"),
        cwd=finished,
        env=environment(finished / "work"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "http://" in line)
        url = next(word for word in line.split() if word.startswith("http://"))
        with openai.OpenAI(base_url=url, api_key="secret", max_retries=0) as client:
            asked = [{"role": "user", "content": "How much is the hat?"}]
            whole = client.chat.completions.create(model="tiny", messages=asked, temperature=0, max_tokens=24)  # type: ignore[arg-type]
            assert whole.model == "tiny@1"
            assert whole.choices[0].message.content
            chunks = client.chat.completions.create(model="tiny", messages=asked, temperature=0, max_tokens=24, stream=True)  # type: ignore[arg-type]
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert streamed == whole.choices[0].message.content
        with openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        if process.stderr is not None:
            process.stderr.close()


def test_serving_off_this_machine_needs_a_key(finished: Path) -> None:
    environment_without_key = {k: v for k, v in environment(finished / "work").items() if k != "TUNESMITH_API_KEY"}
    refused = subprocess.run(
        command("serve", "tiny", "--host", "0.0.0.0"),
        cwd=finished,
        env=environment_without_key,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert "--api-key" in refused.stderr
    assert "TUNESMITH_API_KEY" in refused.stderr


def test_check_says_what_run_then_does(finished: Path) -> None:
    checked = json.loads(call("check", "recipe.yaml", "--json", workspace=finished / "work", cwd=finished).stdout)
    assert checked["rows"]["read"] == len(rows()) == 96
    artefact = finished / "work" / "artefacts" / str(models(finished)[0]["artefact"])
    facts = json.loads((artefact / "tunesmith.json").read_text())
    assert checked["plan"]["num_steps"] == facts["num_steps"]
    assert 0 < checked["plan"]["num_supervised_tokens"] < checked["plan"]["num_tokens"]
    assert checked["plan"]["seconds"] > 0
    assert checked["plan"]["peak_bytes"] > 10**7
    learned = "".join(piece["text"] for piece in checked["preview"]["pieces"] if piece["is_learned"])
    assert "euros" in learned
    assert "How much" not in learned


def test_init_gives_a_project_that_checks_out(tmp_path: Path) -> None:
    made = call("init", "shop", workspace=tmp_path / "work", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "shop" / "recipe.yaml").is_file()
    assert call("init", "shop", workspace=tmp_path / "work", cwd=tmp_path).returncode == 2
    checked = call("check", "shop", "--json", workspace=tmp_path / "work", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["rows"]["read"] > 400


def test_listing_models_of_no_workspace_makes_none(tmp_path: Path) -> None:
    listed = call("models", "--json", workspace=tmp_path / "none", cwd=tmp_path)
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    assert not (tmp_path / "none").exists()


def test_a_summarisation_file_in_csv_and_gzip_runs_through(tmp_path: Path) -> None:
    import csv
    import gzip

    with gzip.open(tmp_path / "rows.csv.gz", "wt", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["prompt", "completion"])
        writer.writerows((row["messages"][0]["content"], row["messages"][1]["content"]) for row in rows())  # type: ignore[index]
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("rows.jsonl", "rows.csv.gz").replace("epochs: 6", "epochs: 1"))
    done = call("run", ".", workspace=tmp_path / "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "prompt_completion" in done.stderr


def test_two_runs_of_one_recipe_at_once_do_not_tread_on_each_other(project: Path) -> None:
    started = [
        subprocess.Popen(
            command("run", "recipe.yaml", "--set", "train.epochs=2"),
            cwd=project,
            env=environment(project / "work"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=240)[1] for process in started]
    codes = sorted(process.returncode for process in started)
    assert codes[0] == 0, said
    assert codes[1] in (0, 2), said
    assert len(models(project)) == 1


def test_progress_goes_to_stderr_and_results_to_stdout(finished: Path) -> None:
    done = call("run", "recipe.yaml", workspace=finished / "work", cwd=finished)
    assert "●" not in done.stdout
    assert "tiny@1" in done.stdout
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    quiet = call("run", "recipe.yaml", "--json", workspace=finished / "work", cwd=finished)
    assert quiet.stderr == ""


def test_a_champion_that_has_learned_test_rows_is_compared_on_the_others_alone(project: Path, cli: Cli) -> None:
    """More data moves rows between the splits; a rival that knows the questions would win by memory."""
    assert cli("run", "recipe.yaml", "--set", "train.epochs=1").returncode == 0
    more = [*rows(), *({**row, "group": f"late {row['group']}", "messages": _politely(row)} for row in rows())]
    write_rows(project / "rows.jsonl", more)
    again = cli("run", "recipe.yaml", "--set", "train.epochs=1", "--set", "promote=if_better")
    assert again.returncode == 0, again.stderr
    assert "the champion tiny@1 has seen" in again.stderr
    assert "all arms are judged on the other" in again.stderr
    (path,) = project.rglob("tiny@2/evaluation.json")
    perplexity = {arm: figures["perplexity"]["value"] for arm, figures in json.loads(path.read_text())["scores"].items()}
    is_better = perplexity["tuned"] <= perplexity["champion"]
    expected = [["previous"], ["champion"]] if is_better else [["champion"], []]
    assert [version["aliases"] for version in models(project)] == expected


def _politely(row: dict[str, object]) -> list[dict[str, str]]:
    question, answer = row["messages"]  # type: ignore[misc]
    return [{**question, "content": "Good morning! " + question["content"]}, answer]
