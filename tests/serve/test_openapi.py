import subprocess
import sys

import pytest

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_it_describes_every_route(server):
    document = server.client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/models", "/v1/predict", "/v1/explain", "/healthz", "/readyz", "/metrics", "/v2", "/v2/health/live",
        "/v2/health/ready", "/v2/models/{name}", "/v2/models/{name}/ready", "/v2/models/{name}/infer",
    }  # fmt: skip
    predict = document["paths"]["/v1/predict"]["post"]
    forms = {"multipart/form-data", "image/*", "application/octet-stream", "application/json"}
    assert set(predict["requestBody"]["content"]) == forms
    assert set(predict["responses"]) == {"200", "400", "401", "404", "408", "413", "415", "422", "500", "503"}
    assert predict["responses"]["503"]["description"] == "overloaded, draining"
    assert [parameter["name"] for parameter in predict["parameters"]] == ["model", "top_k"]


@pytest.mark.parametrize("phase", ["coverage", "fuzzing"])
def test_requests_made_from_it_find_no_failure(server, tmp_path, phase):
    """Schemathesis as a process, because it warns about things that are not ours."""
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    command += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks", CHECKS, "--phases", phase]
    command += ["--max-examples", "15", "--seed", "1", "--continue-on-failure"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
