"""What the corpus declares: for each kind a valid object with drawn parts, so that the server takes most of them.

Values are spelled in several ways, defaults are at times declared and at times left out, lists are empty, sets, atomic
or keyed. Growth along the schema (`growth.py`) adds what is not thought of here.

    build("deployments", draw)      # {"spec": {"selector": ..., "template": ...}}
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from tests.corpus.drawing import CPU, LABEL_VALUES, MEMORY, Draw

Body = dict[str, Any]


def _b64(draw: Draw) -> Any:
    """base64, at times with the line breaks that people's tools put in."""
    encoded = base64.b64encode(f"hunter2-{draw.text()}".encode()).decode()
    return draw.pick(encoded, encoded, encoded + "\n", encoded[:8] + "\n" + encoded[8:])


def _resources(draw: Draw) -> Any:
    def quantities() -> Body:
        return draw.some(70, cpu=lambda: draw.pick(*CPU), memory=lambda: draw.pick(*MEMORY))

    both = {"limits": {"cpu": 4, "memory": "4Gi"}, "requests": quantities()}
    return draw.pick({}, {"limits": quantities()}, {"requests": quantities()}, both)


def _probe(draw: Draw) -> Body:
    handler = draw.pick({"httpGet": {"port": 80}}, {"tcpSocket": {"port": "http"}}, {"exec": {"command": ["a"]}})
    return {
        **handler,
        **draw.some(30, periodSeconds=lambda: draw.pick(10, 5), timeoutSeconds=lambda: draw.pick(1, 2)),
        **draw.some(20, initialDelaySeconds=lambda: draw.pick(0, 3), failureThreshold=lambda: 3),
    }


def _ports(draw: Draw) -> list[Body]:
    return [
        {
            "containerPort": number,
            **draw.some(40, protocol=lambda: draw.pick("TCP", "UDP"), name=lambda n=number: f"p{n}"),  # type: ignore[misc]
        }
        for number in draw.subset(80, 81, 82)
    ]


def _env(draw: Draw) -> list[Body]:
    def variable(name: str) -> Body:
        source = {"fieldRef": {"fieldPath": "metadata.name"}}
        return {"name": name, **draw.pick({"value": draw.text()}, {}, {"valueFrom": source})}

    return [variable(name) for name in draw.subset("A", "B", "C")]


def _container(draw: Draw, name: str) -> Body:
    return {
        "name": name,
        "image": draw.pick("web:1", "web", "web:latest", "r.test/web@sha256:" + "a" * 64),
        **draw.some(
            35,
            args=draw.texts,
            command=lambda: draw.pick([], ["run"]),
            env=lambda: _env(draw),
            ports=lambda: _ports(draw),
            resources=lambda: _resources(draw),
        ),
        **draw.some(
            15,
            imagePullPolicy=lambda: draw.pick("IfNotPresent", "Always"),
            readinessProbe=lambda: _probe(draw),
            livenessProbe=lambda: _probe(draw),
            securityContext=lambda: draw.pick({}, {"privileged": False}, {"capabilities": {"drop": ["ALL"]}}),
            terminationMessagePath=lambda: "/dev/termination-log",
            volumeMounts=lambda: [{"name": "data", "mountPath": "/data", **draw.some(30, readOnly=lambda: False)}],
            envFrom=lambda: draw.pick([], [{"configMapRef": {"name": "c"}}]),
            stdin=lambda: False,
        ),
    }


def _volumes(draw: Draw) -> list[Body]:
    empty = draw.pick({}, {"sizeLimit": draw.pick("1Gi", "1024Mi")}, {"medium": ""})
    secret = {"secretName": "s", **draw.some(40, defaultMode=lambda: draw.pick(420, 256))}
    projected = {"sources": [{"serviceAccountToken": {"path": "t"}}, {"configMap": {"name": "c"}}]}
    data = draw.pick({"emptyDir": empty}, {"secret": secret}, {"configMap": {"name": "c"}}, {"projected": projected})
    return [{"name": "data", **data}]


def _tolerations(draw: Draw) -> Any:
    return draw.pick(
        [], [{"key": "k", "operator": "Exists"}], [{"key": "k", "value": ""}, {"operator": "Exists", "effect": ""}]
    )


def _spread(draw: Draw) -> list[Body]:
    rule = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": draw.pick("ScheduleAnyway", "DoNotSchedule")}
    return [{**rule, **draw.some(50, labelSelector=lambda: {"matchLabels": {"app": "x"}})}]


def pod_spec(draw: Draw, restart: str = "") -> Body:
    """A pod's spec, valid wherever a template stands."""
    containers = [_container(draw, name) for name in draw.subset("main", "side") or ["main"]]
    spec: Body = {
        "containers": containers,
        "volumes": _volumes(draw),
        **draw.some(
            15,
            nodeSelector=lambda: draw.pick({}, {"zone": "a"}),
            tolerations=lambda: _tolerations(draw),
            securityContext=lambda: draw.pick({}, {"runAsUser": 0}, {"fsGroup": 1}),
            terminationGracePeriodSeconds=lambda: draw.pick(30, 0, 5),
            dnsPolicy=lambda: "ClusterFirst",
            hostNetwork=lambda: False,
            imagePullSecrets=lambda: draw.pick([], [{"name": "a"}, {"name": "b"}]),
            initContainers=lambda: [_container(draw, "init")],
            serviceAccountName=lambda: draw.pick("sa", ""),
            topologySpreadConstraints=lambda: _spread(draw),
            hostAliases=lambda: [{"ip": "10.0.0.1", "hostnames": draw.subset("a", "b")}],
        ),
        **draw.some(
            10,
            affinity=lambda: draw.pick({}, {"nodeAffinity": {}}, {"podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {}}}}
                ]}}),
            schedulerName=lambda: "default-scheduler",
            enableServiceLinks=lambda: True,
            automountServiceAccountToken=lambda: False,
        ),
    }  # fmt: skip
    if restart or draw.chance(15):
        spec["restartPolicy"] = restart or "Always"
    return spec


def template(draw: Draw, restart: str = "") -> Body:
    """A pod template whose labels match the selectors here."""
    metadata = {"labels": {"app": "x", **draw.labels()}, **draw.some(20, annotations=draw.map)}
    return {"metadata": metadata, "spec": pod_spec(draw, restart)}


_SELECTOR = {"matchLabels": {"app": "x"}}


def _deployment(draw: Draw) -> Body:
    strategy: tuple[Body, ...] = (
        {"type": "Recreate"}, {"rollingUpdate": {"maxSurge": draw.pick(1, "25%", "1%")}}, {"type": "RollingUpdate"}, {},
    )  # fmt: skip
    more = draw.some(
        30,
        replicas=lambda: draw.pick(1, 0, 3),
        strategy=lambda: draw.pick(*strategy),
        minReadySeconds=lambda: draw.pick(0, 5),
        paused=lambda: draw.pick(False, True),
        revisionHistoryLimit=lambda: draw.pick(10, 0, 3),
        progressDeadlineSeconds=lambda: draw.pick(600, 30),
    )
    return {"spec": {"selector": _SELECTOR, "template": template(draw), **more}}


def _claim(draw: Draw) -> Body:
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": draw.pick("1Gi", "1024Mi", "1G", "1e9", 1073741824)}},
        **draw.some(30, volumeMode=lambda: "Filesystem", storageClassName=lambda: draw.pick("", "fast")),
    }


def _stateful_set(draw: Draw) -> Body:
    claim = {"metadata": {"name": "disk"}, "spec": _claim(draw)}
    more = draw.some(
        30,
        replicas=lambda: draw.pick(1, 0, 3),
        serviceName=lambda: draw.pick("s", ""),
        podManagementPolicy=lambda: draw.pick("OrderedReady", "Parallel"),
        updateStrategy=lambda: draw.pick({"type": "OnDelete"}, {"rollingUpdate": {"partition": 0}}, {}),
        volumeClaimTemplates=lambda: [claim],
        persistentVolumeClaimRetentionPolicy=lambda: {"whenDeleted": "Retain"},
    )
    return {"spec": {"selector": _SELECTOR, "template": template(draw), **more}}


def _daemon_set(draw: Draw) -> Body:
    more = draw.some(
        30,
        updateStrategy=lambda: draw.pick({"type": "OnDelete"}, {"rollingUpdate": {"maxUnavailable": "10%"}}),
        minReadySeconds=lambda: 0,
    )
    return {"spec": {"selector": _SELECTOR, "template": template(draw), **more}}


def _replica_set(draw: Draw) -> Body:
    return {"spec": {"selector": _SELECTOR, "template": template(draw), **draw.some(replicas=lambda: draw.pick(1, 0))}}


def _job_spec(draw: Draw) -> Body:
    more = draw.some(
        30,
        parallelism=lambda: draw.pick(1, 2),
        backoffLimit=lambda: draw.pick(6, 0),
        suspend=lambda: draw.pick(False, True),
        completionMode=lambda: "NonIndexed",
        ttlSecondsAfterFinished=lambda: draw.pick(0, 60),
    )
    return {"template": template(draw, draw.pick("Never", "OnFailure")), **more}


def _cron_job(draw: Draw) -> Body:
    more = draw.some(
        30,
        concurrencyPolicy=lambda: draw.pick("Allow", "Forbid"),
        suspend=lambda: draw.pick(False, True),
        successfulJobsHistoryLimit=lambda: draw.pick(3, 0),
        timeZone=lambda: "Etc/UTC",
    )
    return {"spec": {"schedule": draw.pick("* * * * *", "@daily"), "jobTemplate": {"spec": _job_spec(draw)}, **more}}


def _service(draw: Draw) -> Body:
    def port(number: int) -> Body:
        more = draw.some(
            40, protocol=lambda: draw.pick("TCP", "UDP"), targetPort=lambda: draw.pick(number, "http", 8080)
        )
        return {"port": number, "name": f"p{number}", **more}

    ports = [port(number) for number in draw.subset(80, 81, 82) or [80]]
    more = draw.some(
        20,
        type=lambda: draw.pick("ClusterIP", "NodePort", "LoadBalancer"),
        sessionAffinity=lambda: draw.pick("None", "ClientIP"),
        internalTrafficPolicy=lambda: "Cluster",
        publishNotReadyAddresses=lambda: False,
        ipFamilyPolicy=lambda: "SingleStack",
        externalIPs=lambda: draw.pick([], ["192.0.2.1"]),
    )
    if "type" not in more and draw.chance(15):
        more["clusterIP"] = "None"
    return {"spec": {"ports": ports, "selector": draw.pick({"app": "x"}, {}, {"a": ""}), **more}}


def _secret(draw: Draw) -> Body:
    names = draw.subset("a", "b.txt", "c")
    plain = {name: f"swordfish-{draw.text()}" for name in draw.subset("b.txt", "d")}
    body: Body = {"data": {name: _b64(draw) for name in names}, **draw.some(30, type=lambda: "Opaque")}
    return {**body, "stringData": plain} if draw.chance(40) else body


def _config_map(draw: Draw) -> Body:
    return draw.some(80, data=draw.map, binaryData=lambda: {"bin": _b64(draw)}) | draw.some(10, immutable=lambda: False)


def _account(draw: Draw) -> Body:
    return draw.some(
        40,
        automountServiceAccountToken=lambda: draw.pick(False, True),
        imagePullSecrets=lambda: [{"name": name} for name in draw.subset("a", "b")],
        secrets=lambda: [{"name": name} for name in draw.subset("a", "b")],
    )


def _role(draw: Draw) -> Body:
    rule = {
        "apiGroups": draw.pick([""], ["apps", ""]),
        "resources": ["pods"],
        "verbs": draw.subset("get", "list") or ["get"],
    }
    return {"rules": draw.pick([], [rule], [rule, {**rule, "resourceNames": draw.subset("a", "b")}])}


def _role_binding(draw: Draw) -> Body:
    account = {"kind": "ServiceAccount", "name": "a", "namespace": "n"}
    user = {"kind": "User", "name": "u", **draw.some(50, apiGroup=lambda: "rbac.authorization.k8s.io")}
    reference = {"kind": "Role", "name": "r", **draw.some(60, apiGroup=lambda: "rbac.authorization.k8s.io")}
    return {"roleRef": reference, "subjects": draw.subset(account, user)}


def _ingress(draw: Draw) -> Body:
    def path(name: str) -> Body:
        port = draw.pick({"number": 80}, {"name": "http"})
        return {
            "path": name,
            "pathType": draw.pick("Prefix", "Exact"),
            "backend": {"service": {"name": "s", "port": port}},
        }

    paths = [path(name) for name in draw.subset("/", "/a") or ["/"]]
    more = draw.some(
        30,
        ingressClassName=lambda: "nginx",
        tls=lambda: draw.pick([], [{"hosts": ["a.example.com"], "secretName": "s"}], [{}]),
        defaultBackend=lambda: {"service": {"name": "s", "port": {"number": 80}}},
    )
    return {"spec": {"rules": [{"host": "a.example.com", "http": {"paths": paths}}], **more}}


def _network_policy(draw: Draw) -> Body:
    port = {"port": draw.pick(80, "http"), **draw.some(50, protocol=lambda: "TCP")}
    peer = draw.pick(
        {"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}, {"namespaceSelector": {"matchLabels": {}}}
    )
    more = draw.some(
        40,
        policyTypes=lambda: draw.pick(["Ingress"], ["Ingress", "Egress"]),
        ingress=lambda: draw.pick([], [{}], [{"ports": [port]}], [{"from": [peer], "ports": [port]}]),
        egress=lambda: draw.pick([], [{}], [{"to": [peer]}]),
    )
    return {"spec": {"podSelector": draw.pick({}, _SELECTOR, {"matchLabels": {}}), **more}}


def _disruption_budget(draw: Draw) -> Body:
    limit = draw.pick({"minAvailable": draw.pick(1, "50%", 0)}, {"maxUnavailable": draw.pick(1, "1%", 0)})
    more = draw.some(20, unhealthyPodEvictionPolicy=lambda: "IfHealthyBudget")
    return {"spec": {"selector": draw.pick(_SELECTOR, {}), **limit, **more}}


def _autoscaler(draw: Draw) -> Body:
    def metric(name: str) -> Body:
        cpu = {"type": "Utilization", "averageUtilization": draw.pick(50, 80)}
        target = cpu if name == "cpu" else {"type": "AverageValue", "averageValue": draw.pick("500Mi", "0.5Gi", "1e9")}
        return {"type": "Resource", "resource": {"name": name, "target": target}}

    behaviour = {
        "scaleDown": draw.pick({"stabilizationWindowSeconds": draw.pick(0, 300)}, {"selectPolicy": "Disabled"})
    }
    more = draw.some(
        50,
        minReplicas=lambda: draw.pick(1, 2),
        metrics=lambda: [metric(name) for name in draw.subset("cpu", "memory") or ["cpu"]],
        behavior=lambda: draw.pick(behaviour, {}),
    )
    target = {"kind": "Deployment", "name": "x", **draw.some(80, apiVersion=lambda: "apps/v1")}
    return {"spec": {"scaleTargetRef": target, "maxReplicas": draw.pick(3, 5), **more}}


def _limit_range(draw: Draw) -> Body:
    limits = draw.some(50, max=lambda: {"cpu": "8"}, default=lambda: {"cpu": draw.pick("1", "1000m", 1)})
    return {"spec": {"limits": [{"type": "Container", **limits}]}}


def _quota(draw: Draw) -> Body:
    hard = draw.some(
        60, pods=lambda: draw.pick("10", 10, "1e1"), **{"requests.cpu": lambda: draw.pick("1", "1000m", 1.0)}
    )
    return {"spec": {"hard": hard, **draw.some(20, scopes=lambda: draw.pick([], ["NotTerminating"]))}}


def _flink_configuration(draw: Draw) -> Body:
    names = draw.subset("taskmanager.numberOfTaskSlots", "execution.checkpointing.interval", "a.b", "a.b.c", "a")
    return {name: draw.pick("2", "60s", "true", "1.0", "", draw.text()) for name in names}


def _flink_job(draw: Draw) -> Body:
    return draw.some(
        40,
        jarURI=lambda: draw.pick("local:///a.jar", ""),
        parallelism=lambda: draw.pick(1, 2),
        upgradeMode=lambda: draw.pick("stateless", "savepoint", "last-state"),
        state=lambda: draw.pick("running", "suspended"),
        args=draw.texts,
        allowNonRestoredState=lambda: draw.pick(False, True),
        initialSavepointPath=lambda: draw.pick("s3://s/1", ""),
        savepointTriggerNonce=lambda: draw.pick(0, 1),
    )


def _flink_deployment(draw: Draw) -> Body:
    def resource() -> Body:
        return {
            "resource": draw.some(
                70, cpu=lambda: draw.pick(1, 0.5, 1.0, 2.5), memory=lambda: draw.pick("2048m", "2g", "2Gi")
            ),
            **draw.some(30, replicas=lambda: draw.pick(1, 2)),
        }

    more = draw.some(
        50,
        flinkConfiguration=lambda: _flink_configuration(draw),
        job=lambda: _flink_job(draw),
        taskManager=resource,
        jobManager=resource,
        serviceAccount=lambda: draw.pick("flink", ""),
        podTemplate=lambda: {"spec": pod_spec(draw), **draw.some(30, metadata=lambda: {"labels": draw.labels()})},
        restartNonce=lambda: draw.pick(0, 1, 2**40),
        logConfiguration=lambda: {"log4j-console.properties": draw.text()},
        ingress=lambda: draw.pick({}, {"template": "a", "labels": draw.labels(), "tls": [{}]}),
        mode=lambda: draw.pick("native", "standalone"),
    )
    return {"spec": {"image": draw.pick("orders:1", "orders"), "flinkVersion": draw.pick("v1_20", "v1_19"), **more}}


def _flink_session_job(draw: Draw) -> Body:
    more = draw.some(50, flinkConfiguration=lambda: _flink_configuration(draw), restartNonce=lambda: draw.pick(0, 1))
    return {"spec": {"deploymentName": "d", "job": _flink_job(draw), **more}}


def _specimen(draw: Draw) -> Body:
    def port(number: int) -> Body:
        return {"port": number, **draw.some(50, protocol=lambda: draw.pick("TCP", "UDP"), name=draw.text)}

    more = draw.some(
        40,
        size=lambda: draw.pick(3, 0, 5),
        amount=lambda: draw.pick(1, "1", "50%", "1000m", 0),
        labels=draw.labels,
        tags=lambda: draw.subset("x", "y", "1", "é", 'q"'),
        words=draw.texts,
        ports=lambda: [port(number) for number in draw.subset(1, 2, 3)],
        whole=draw.map,
        free=lambda: {draw.pick("p", "q", "r.s"): draw.free() for _ in range(draw.number(0, 3))},
        nothing=lambda: draw.pick(None, "x", ""),
    )
    return {"spec": {"title": draw.pick("a", "b", "a b"), **more}}


BUILDERS: dict[str, Callable[[Draw], Body]] = {
    "configmaps": _config_map,
    "secrets": _secret,
    "services": _service,
    "serviceaccounts": _account,
    "persistentvolumeclaims": lambda draw: {"spec": _claim(draw)},
    "limitranges": _limit_range,
    "resourcequotas": _quota,
    "deployments": _deployment,
    "statefulsets": _stateful_set,
    "daemonsets": _daemon_set,
    "replicasets": _replica_set,
    "jobs": lambda draw: {"spec": _job_spec(draw)},
    "cronjobs": _cron_job,
    "ingresses": _ingress,
    "networkpolicies": _network_policy,
    "poddisruptionbudgets": _disruption_budget,
    "horizontalpodautoscalers": _autoscaler,
    "roles": _role,
    "rolebindings": _role_binding,
    "flinkdeployments": _flink_deployment,
    "flinksessionjobs": _flink_session_job,
    "specimens": _specimen,
}
#: What a fleet has most of comes most often.
PLURALS = (
    *BUILDERS,
    "deployments",
    "deployments",
    "flinkdeployments",
    "flinkdeployments",
    "specimens",
    "specimens",
    "services",
)


def metadata(draw: Draw) -> Body:
    """Labels, annotations and finalizers beside our own marks."""
    return {
        "labels": {"reconciler.dev/owner": "abc", **draw.some(30, team=lambda: draw.pick(*LABEL_VALUES))},
        "annotations": {"reconciler.dev/application": "fleet/x", **(draw.map() if draw.chance(30) else {})},
        **draw.some(5, finalizers=lambda: draw.subset("example.com/a", "example.com/b") or ["example.com/c"]),
    }


def build(plural: str, draw: Draw) -> Body:
    """The body of an object, without apiVersion, kind and name."""
    return {"metadata": metadata(draw), **BUILDERS[plural](draw)}
