import pytest
import yaml

OPTIONS = ["--name", "mine", "--image", "registry/fetalclip:1"]
COMMAND = ["--", "fetalclip", "train", "--config", "c.py", "--workdir", "gs://bucket/run"]


def rendered(fakes, *options, command=COMMAND):
    done = fakes.launch("gke.sh", *OPTIONS, *options, "--dry-run", *command)
    assert (done.returncode, done.stderr) == (0, "")
    first, *lines, last = done.stdout.splitlines()
    assert (first, last) == ("kubectl create -f - <<'END_OF_JOBSET'", "END_OF_JOBSET")
    assert not fakes.calls()
    assert "${" not in done.stdout
    return yaml.safe_load("\n".join(lines))


def job_of(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def test_every_host_of_the_slice_runs_the_command(fakes):
    jobset = rendered(fakes, "--topology", "v5e:4x4")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = job_of(jobset)
    assert (job["completions"], job["parallelism"], job["completionMode"]) == (4, 4, "Indexed")
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    (container,) = pod["containers"]
    assert container["image"] == "registry/fetalclip:1"
    assert container["command"] == COMMAND[1:]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_processes_find_each_other_by_the_names_of_their_pods(fakes):
    (container,) = job_of(rendered(fakes, "--topology=v5p:2x2x2"))["template"]["spec"]["containers"]
    values = {one["name"]: one.get("value") for one in container["env"]}
    # JobSet calls pods JOBSET-REPLICATED_JOB-JOB-POD, in a domain of the JobSet's name.
    assert values["JAX_COORDINATOR_ADDRESS"] == "mine-slice-0-0.mine:8476"
    assert values["JAX_NUM_PROCESSES"] == "2"
    (number,) = [one for one in container["env"] if one["name"] == "JAX_PROCESS_ID"]
    path = number["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def test_preemption_is_no_failure_and_a_saved_run_comes_back(fakes):
    jobset = rendered(fakes, "--topology=v5e:4x4", "--restarts=2", "--save-seconds=90")
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 2
    assert policy["rules"] == [
        {
            "name": "preempted",
            "action": "RestartJobSetAndIgnoreMaxRestarts",
            "onJobFailureReasons": ["PodFailurePolicy"],
        }
    ]
    job = job_of(jobset)
    assert job["backoffLimit"] == 0
    lost, told = job["podFailurePolicy"]["rules"]
    assert lost["action"] == told["action"] == "FailJob"
    assert lost["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    status = next(one for one in container["env"] if one["name"] == "FETALCLIP_STOPPED_STATUS")
    assert told["onExitCodes"]["values"] == [int(status["value"])]
    assert told["onExitCodes"]["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never"  # what a podFailurePolicy requires
    assert pod["terminationGracePeriodSeconds"] == 90


@pytest.mark.parametrize(("topology", "alone"), [("v6e:2x4", True), ("v6e:4x4", False)])
def test_only_a_slice_of_several_hosts_takes_a_node_pool_for_itself(fakes, topology, alone):
    annotations = rendered(fakes, "--topology", topology)["metadata"].get("annotations") or {}
    assert ("alpha.jobset.sigs.k8s.io/exclusive-topology" in annotations) != alone


def test_spot_nodes_are_taken_where_asked_for(fakes):
    pod = job_of(rendered(fakes, "--topology=v5e:2x2", "--spot"))["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"


def test_a_command_is_neither_yaml_nor_expanded(fakes):
    words = ["fetalclip", 'a "b" & \\ c', "$(HOME)", "{x: 1}", "- y", "it's", "#", "${NAME}", "é"]
    done = fakes.launch("gke.sh", *OPTIONS, "--topology=v5e:2x2", "--dry-run", "--", *words)
    jobset = yaml.safe_load("\n".join(done.stdout.splitlines()[1:-1]))
    (container,) = job_of(jobset)["template"]["spec"]["containers"]
    # Kubernetes replaces $(NAME) in a command; a second $ keeps it.
    assert [word.replace("$$(", "$(") for word in container["command"]] == words


def test_it_is_created_and_said_how_to_follow(fakes):
    fakes.program("kubectl", 'cat >"$FAKES/yaml"; echo jobset.jobset.x-k8s.io/mine created')
    options = [*OPTIONS, "--topology=v5e:2x2", "--namespace=team"]
    done = fakes.launch("gke.sh", *options, *COMMAND)
    assert done.returncode == 0
    assert fakes.calls() == ["kubectl create --namespace=team -f -"]
    assert yaml.safe_load((fakes.folder / "yaml").read_text())["metadata"]["name"] == "mine"
    assert "kubectl logs --namespace=team -f -l jobset.sigs.k8s.io/jobset-name=mine" in done.stdout


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            'Error from server (AlreadyExists): jobsets.jobset.x-k8s.io "mine" already exists',
            "there is a JobSet mine already; choose another --name",
        ),
        (
            'error: resource mapping not found for name: "mine": no matches for kind "JobSet" in'
            ' version "jobset.x-k8s.io/v1alpha2"',
            "the cluster does not know JobSets; install them: https://jobset.sigs.k8s.io",
        ),
        ("error: You must be logged in to the server", "kubectl: error: You must be logged in"),
    ],
)
def test_what_kubectl_refuses_is_one_line(fakes, said, message):
    fakes.program("kubectl", f"echo '{said}' >&2; exit 1")
    done = fakes.launch("gke.sh", *OPTIONS, "--topology=v5e:2x2", *COMMAND)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
