"""A comparison as a report in wandb: made by wandb's own library, against a server that keeps what it gets."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from launch.compare.wandb_report import project_of
from singan.errors import UserError
from singan.storage import workdir as records
from singan.storage.workdir import Workdir
from tests.launch.train.train_test import ROOT, Commands

KEY = "a" * 40


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Commands:
    return Commands(tmp_path_factory)


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers what wandb-workspaces asks for, in the shapes of wandb's GraphQL interface."""

    saved: list[dict[str, Any]]

    def do_POST(self):
        if self.path != "/graphql":  # what else a client of wandb sends
            self.send_error(404)
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        query, variables = asked["query"], asked.get("variables") or {}
        if "upsertView" in query:
            self.saved.append(variables)
            project = {"id": "1", "name": variables["projectName"], "entityName": variables["entityName"]}
            kept = {key: variables[key] for key in ("name", "displayName", "description", "spec", "type")}
            view = {"id": "Vmlldzox", "project": project, "updatedAt": "2026-01-01T00:00:00Z", **kept}
            data: dict[str, Any] = {"upsertView": {"view": view, "inserted": True}}
        elif "ProjectInternalId" in query:
            data = {"project": {"id": "x", "internalId": "17"}}
        elif "viewer" in query:
            empty = {"edges": []}
            viewer = {"id": "1", "username": "me", "entity": "me", "flags": "{}", "teams": empty, "apiKeys": empty}
            data = {"viewer": viewer}
        else:
            node = {"id": "1", "name": "tissue", "entityName": "me", "createdAt": "2026-01-01T00:00:00Z"}
            edge = {"node": {**node, "isBenchmark": False, "user": None}, "cursor": "c"}
            data = {"models": {"edges": [edge], "pageInfo": {"endCursor": "c", "hasNextPage": False}}}
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    handler = type("Handler", (_Server,), {"saved": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", handler.saved
        running.shutdown()


def compare(commands: Commands, tmp_path, url: str, *arguments: str) -> subprocess.CompletedProcess:
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}
    command = [sys.executable, "-m", "launch.compare", *arguments, f"--out={tmp_path / 'comparison'}"]
    environment = {**os.environ, **commands.environment, **home}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.processes
@pytest.mark.slow
def test_the_runs_of_a_sweep_get_a_report(commands, tmp_path, server):
    pytest.importorskip("wandb_workspaces")
    url, saved = server
    root, finished = tmp_path / "sweep", commands.finished_run()
    for name, run_id in (("one", "11111111"), ("two", "22222222")):
        shutil.copytree(finished, root / name)
        records.write_run(Workdir(root / name), {**records.read_run(Workdir(finished)), "id": run_id})
    done = compare(commands, tmp_path, url, str(root), "--wandb_report=me/tissue")
    assert done.returncode == 0, done.stderr
    assert "the report is " in done.stdout
    assert KEY not in done.stdout + done.stderr
    (report,) = saved
    assert (report["entityName"], report["projectName"]) == ("me", "tissue")
    assert report["displayName"] == "Comparison of sweep"
    spec = report["spec"]
    assert "11111111" in spec
    assert "22222222" in spec
    panels = [panel for block in json.loads(spec)["blocks"] for panel in _panels(block)]
    kinds = {panel["viewType"] for panel in panels}
    assert kinds == {"Run History Line Plot", "Bar Chart", "Media Browser", "Run Comparer"}
    # What the panels name is what training sends.
    lines = {metric for panel in panels for metric in panel["config"].get("metrics", []) if "end/" not in metric}
    assert "scale_00/generator/reconstruction_rmse_mean" in lines
    assert "reconstruction RMSE" in spec  # the table


def _panels(block: dict[str, Any]) -> list[dict[str, Any]]:
    return block.get("metadata", {}).get("panelBankSectionConfig", {}).get("panels", [])


@pytest.mark.processes
@pytest.mark.slow
def test_without_network_the_page_is_there_and_one_line_says_why_the_report_is_not(commands, tmp_path):
    pytest.importorskip("wandb_workspaces")
    run = str(commands.finished_run())
    other = tmp_path / "other"
    other.symlink_to(run)
    done = compare(commands, tmp_path, "http://127.0.0.1:1", run, str(other), "--wandb_report=me/tissue")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "the report in wandb project me/tissue cannot be made" in line
    assert KEY not in line
    assert (tmp_path / "comparison" / "compare.html").is_file()


def test_a_project_is_entity_and_name():
    assert project_of("me/tissue") == ("me", "tissue")
    assert project_of("tissue") == (None, "tissue")
    for wrong in ("a/b/c", "/b", "a/", "a b"):
        with pytest.raises(UserError, match="give ENTITY/PROJECT"):
            project_of(wrong)
