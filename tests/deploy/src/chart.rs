//! `deploy/helm/keymeter`, as Helm renders it, held against the schemas of Kubernetes and against itself.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path, process::Command, process::Stdio};

use serde_json::{Value, json};

use crate::kubernetes::{Pod, named, pods};

/// What came of one set of values.
pub(crate) struct Rendered {
    pub(crate) objects: Vec<Value>,
    findings: Vec<String>,
    unknown: Vec<String>,
}

fn folder() -> std::path::PathBuf {
    parts::root().join("deploy/helm/keymeter")
}

/// What Helm makes of a chart with each of the values; an error if it refuses them.
fn render_all(chart: &Path, cases: &[Value]) -> Vec<Result<Rendered, String>> {
    let mut python = Command::new(parts::checker("python"))
        .arg(parts::root().join("tests/deploy/src/chart.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({ "chart": chart, "cases": cases }).to_string();
    python.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let rendered = |answer: Value| match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(Rendered {
            findings: texts(&answer["findings"]),
            unknown: texts(&answer["unknown"]),
            objects: answer["objects"].as_array().unwrap().clone(),
        }),
    };
    answers.into_iter().map(rendered).collect()
}

pub(crate) fn render(values: &Value) -> Rendered {
    render_all(&folder(), std::slice::from_ref(values)).remove(0).unwrap()
}

fn minimal() -> Value {
    let one = json!({ "replicas": 1 });
    json!({
        "keys": one, "ingest": one, "query": one, "ui": one, "edge": one, "podDisruptionBudgets": false,
        "networkPolicies": { "enabled": false }, "migrate": { "enabled": false },
    })
}

fn everything() -> Value {
    let scaling = json!({ "autoscaling": { "enabled": true } });
    let peer = json!([{ "namespaceSelector": { "matchLabels": { "team": "ours" } } }]);
    json!({
        "image": { "repository": "registry.example.com/keymeter", "tag": "0.1.0-rc.1", "pullPolicy": "Always" },
        "imagePullSecrets": [{ "name": "pull" }],
        "query": scaling, "ui": scaling,
        "keys": { "settings": { "RUST_LOG": "debug" } },
        "edge": {
            "autoscaling": { "enabled": true, "minReplicas": 3 }, "drainS": 60,
            "upstreamUrl": "https://a:8443,https://b:8443",
            "spool": { "size": "20Gi", "bytesMax": 17_179_869_184_u64, "storageClass": "fast" },
            "service": { "type": "LoadBalancer", "annotations": { "a": "b" } },
            "settings": { "KEYMETER_EDGE_REGION": "eu-1", "KEYMETER_EDGE_FEED_LOST_AFTER_S": 60 },
        },
        "ingest": { "autoscaling": { "enabled": true, "lagMetric": "keymeter_ingest_lag_seconds" } },
        "networkPolicies": {
            "monitoring": peer, "grpc": peer, "upstreamPorts": [8443],
            "egress": [{ "ports": [{ "port": 4317 }] }],
        },
        "monitoring": {
            "serviceMonitor": { "enabled": true, "labels": { "release": "prometheus" } },
            "prometheusRule": { "enabled": true, "labels": { "release": "prometheus" } },
        },
        "podAnnotations": { "a": "b" }, "nodeSelector": { "a": "b" },
        "tolerations": [{ "key": "a", "operator": "Exists" }],
    })
}

#[test]
fn kubernetes_knows_every_field_of_every_object() {
    let secured =
        json!({ "identity": { "enabled": true }, "monitoring": { "serviceMonitor": { "enabled": true } } });
    let cases = render_all(&folder(), &[json!({}), minimal(), everything(), secured]);
    let cases: Vec<_> = cases.into_iter().map(Result::unwrap).collect();
    for case in &cases {
        assert_eq!(case.findings, Vec::<String>::new());
        hold_together(&case.objects);
    }
    let kinds = |case: &Rendered| -> BTreeSet<String> {
        case.objects.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect()
    };
    let least = ["Deployment", "Pod", "Service", "ServiceAccount", "StatefulSet"].map(str::to_owned);
    assert_eq!(kinds(&cases[1]), BTreeSet::from(least));
    // These two are the Prometheus operator's, and are held against no schema.
    let operator =
        ["PrometheusRule", "ServiceMonitor"].map(|kind| format!("monitoring.coreos.com/v1 {kind}"));
    assert_eq!((cases[0].unknown.len(), &cases[2].unknown[..]), (0, &operator[..]));
    let all = "Deployment HorizontalPodAutoscaler Job NetworkPolicy Pod PodDisruptionBudget PrometheusRule Service \
               ServiceAccount ServiceMonitor StatefulSet";
    assert_eq!(kinds(&cases[2]), all.split_whitespace().map(str::to_owned).collect());
}

/// Every address between services is https, and each file of an identity is in the Secret of that service.
#[test]
fn with_identities_nothing_goes_in_the_clear() {
    let rendered = render(&json!({
        "identity": { "enabled": true }, "clickhouse": { "url": "https://clickhouse:8443" },
        "edge": { "upstreamUrl": "https://api:8443" },
    }));
    let mut shown = 0;
    for pod in pods(&rendered.objects) {
        for container in pod.containers() {
            for one in container["env"].as_array().unwrap() {
                let (name, value) = (one["name"].as_str().unwrap(), one["value"].as_str().unwrap());
                assert!(!value.starts_with("http://"), "{}: {name}={value}", pod.name);
                if name.contains("_IDENTITY_") || name.contains("_TLS_") {
                    let (secret, key) = pod.secret_at(container, value).unwrap();
                    let image = container["image"].as_str().unwrap();
                    let service = image.split(['/', ':']).nth(1).unwrap();
                    assert!(secret.ends_with(&format!("-{service}-identity")), "{}: {secret}", pod.name);
                    assert!(["tls.crt", "tls.key", "ca.crt"].contains(&key.as_str()), "{key}");
                    shown += 1;
                }
            }
        }
    }
    // Five services, the migration, and the test of each of five: three files; and two more of edge and ui each time.
    assert_eq!(shown, 3 * 11 + 2 * 4);
}

/// A check that finds nothing in anything would say the same of our chart.
#[test]
fn a_field_that_kubernetes_does_not_know_is_found() {
    let copy = tempfile::tempdir().unwrap();
    let chart = copy.path().join("keymeter");
    assert!(Command::new("cp").arg("-rL").arg(folder()).arg(&chart).status().unwrap().success());
    let file = chart.join("templates/edge.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("podManagementPolicy:", "podManagmentPolicy:")).unwrap();
    let findings = render_all(&chart, &[json!({})]).remove(0).unwrap().findings;
    assert_eq!(findings.len(), 2, "once for each version: {findings:?}");
    assert!(findings.iter().all(|finding| finding.contains("podManagmentPolicy")), "{findings:?}");
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let cases = [
        (json!({ "shards": 0 }), "/shards"),
        (json!({ "replicas": 3 }), "replicas"),
        (json!({ "keys": { "replica": 2 } }), "/keys"),
        (json!({ "keys": { "replicas": 0 } }), "/keys/replicas"),
        (json!({ "keys": { "secret": "Not A Name" } }), "/keys/secret"),
        (json!({ "edge": { "upstreamUrl": "api:8080" } }), "/edge/upstreamUrl"),
        (json!({ "edge": { "spool": { "bytesMax": 1000 } } }), "/edge/spool/bytesMax"),
        (json!({ "edge": { "spool": { "size": "large" } } }), "/edge/spool/size"),
        (json!({ "edge": { "settings": { "KEYMETER_UI_ADDR": "a" } } }), "KEYMETER_UI_ADDR"),
        (json!({ "edge": { "service": { "type": "Balanced" } } }), "/edge/service/type"),
        (json!({ "clickhouse": { "url": "http://user:password@clickhouse" } }), "/clickhouse/url"),
        (json!({ "publicUrl": "keymeter.example.com" }), "/publicUrl"),
        (json!({ "image": { "pullPolicy": "Sometimes" } }), "/image/pullPolicy"),
        (json!({ "query": { "autoscaling": { "cpuPercent": 0 } } }), "/query/autoscaling/cpuPercent"),
        (
            json!({ "ingest": { "autoscaling": { "enabled": true, "maxReplicas": 9 } } }),
            "maxReplicas is 9 and shards is 4",
        ),
        (json!({ "networkPolicies": { "natsPort": "4222" } }), "/networkPolicies/natsPort"),
        (
            json!({ "monitoring": { "serviceMonitor": { "interval": "soon" } } }),
            "/monitoring/serviceMonitor/interval",
        ),
    ];
    let values: Vec<_> = cases.iter().map(|(values, _)| values.clone()).collect();
    for ((values, name), answer) in cases.iter().zip(render_all(&folder(), &values)) {
        let error = answer.err().unwrap_or_default();
        assert!(error.contains(name), "{values}: {error}");
    }
}

/// What Kubernetes would take and what would not work all the same.
fn hold_together(objects: &[Value]) {
    let pods = pods(objects);
    for pod in &pods {
        pod.is_contained();
    }
    let selects = |selector: &Value| -> Vec<&Pod> {
        let wanted = selector.as_object().unwrap();
        pods.iter().filter(|pod| wanted.iter().all(|(label, value)| pod.labels[label] == *value)).collect()
    };
    for object in objects {
        let (kind, spec) = (object["kind"].as_str().unwrap(), &object["spec"]);
        for label in ["name", "instance", "component", "version", "part-of", "managed-by"] {
            assert!(
                object["metadata"]["labels"][format!("app.kubernetes.io/{label}")].is_string(),
                "{}",
                named(object)
            );
        }
        match kind {
            "Service" => {
                let found = selects(&spec["selector"]);
                assert_eq!(found.len(), 1, "{}", named(object));
                for port in spec["ports"].as_array().unwrap() {
                    assert!(found[0].has_port(port["targetPort"].as_str().unwrap()), "{}", named(object));
                }
            }
            "PodDisruptionBudget" => assert_eq!(selects(&spec["selector"]["matchLabels"]).len(), 1),
            // Of a job that has ended, or a test that has not begun, there may be no pod.
            "NetworkPolicy" => assert!(selects(&spec["podSelector"]["matchLabels"]).len() <= 1),
            "HorizontalPodAutoscaler" => {
                let target = &spec["scaleTargetRef"];
                let target = objects.iter().find(|object| {
                    object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"]
                });
                assert!(target.unwrap()["spec"]["replicas"].is_null(), "two would say how many there are");
            }
            "Deployment" | "StatefulSet" => {
                assert_eq!(selects(&spec["selector"]["matchLabels"]).len(), 1, "{}", named(object));
            }
            "Secret" => panic!("the chart makes no secret"),
            _ => {}
        }
    }
}

#[test]
fn an_edge_drains_and_leaves_its_spool_behind() {
    for values in [json!({}), everything()] {
        let rendered = render(&values);
        let set = rendered.objects.iter().find(|object| object["kind"] == "StatefulSet").unwrap();
        let retention = &set["spec"]["persistentVolumeClaimRetentionPolicy"];
        assert_eq!(retention, &json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
        let pod = &set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let environment = container["env"].as_array().unwrap();
        let setting = |name: &str| {
            environment.iter().find(|one| one["name"] == name).unwrap()["value"].as_str().unwrap().to_owned()
        };
        let drain: i64 = setting("KEYMETER_EDGE_DRAIN_S").parse().unwrap();
        let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().unwrap();
        // Five seconds to publish what is left, and five to hear that it arrived.
        assert!(pod["terminationGracePeriodSeconds"].as_i64().unwrap() > before + drain + 10);
        let bytes: u64 = setting("KEYMETER_EDGE_SPOOL_BYTES_MAX").parse().unwrap();
        assert!(bytes >= 1 << 32, "no float");
        let mount =
            container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "spool");
        assert_eq!(mount.unwrap()["mountPath"], setting("KEYMETER_EDGE_SPOOL_DIR"));
        assert_eq!(set["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "spool");
    }
}

/// The rules are those of `deploy/prometheus`, which are tried out there.
#[test]
fn rules_are_those_that_are_tested() {
    let rendered = render(&everything());
    let rule = rendered.objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let groups = rule["spec"]["groups"].as_array().unwrap().iter();
    let names: Vec<_> = groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .map(|rule| rule["alert"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, crate::monitoring::alerts());
}
