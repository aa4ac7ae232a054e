//! The chart's containers on real parts, as a cluster would start them: the same arguments and environment, and secrets
//! as files where they are mounted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    chart::render,
    kubernetes::{Pod, pods},
    site::{Container, Site, Stores},
};

const NATS: &str = "port: 4222\nhttp: 127.0.0.1:8222\nauthorization { include \"users.conf\" }\njetstream { store_dir: \"/data\" }\n";
const USERS: &str =
    "<clickhouse><users><default><networks><ip>127.0.0.1</ip></networks></default></users></clickhouse>";

/// What the values say that Secrets hold.
fn secrets() -> BTreeMap<&'static str, BTreeMap<&'static str, &'static str>> {
    let service = "postgres://keymeter_keys:p@postgres:5432/keymeter";
    BTreeMap::from([
        (
            "keymeter-keys",
            BTreeMap::from([
                ("database-url", service),
                ("nats-url", "nats://keys:p%40@nats:4222"),
                ("kek", "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"),
            ]),
        ),
        (
            "keymeter-migrate",
            BTreeMap::from([
                ("owner-database-url", "postgres://keymeter@postgres:5432/keymeter"),
                ("keys-password", "p"),
            ]),
        ),
        ("keymeter-edge", BTreeMap::from([("nats-url", "nats://keys:p%40@nats:4222")])),
        (
            "keymeter-ingest",
            BTreeMap::from([
                ("nats-url", "nats://keys:p%40@nats:4222"),
                ("clickhouse-password", "of ingest"),
            ]),
        ),
        ("keymeter-query", BTreeMap::from([("clickhouse-password", "of query")])),
        ("keymeter-edge-feed", BTreeMap::new()),
    ])
}

/// The pod's containers, with files of secrets where they are here.
fn containers(site: &Site, pod: &Pod, used: &mut BTreeSet<(String, String)>) -> Vec<Container> {
    let container = |container: &Value| {
        let image = container["image"].as_str().unwrap();
        let mut here = |value: &str| match pod.secret_at(container, value) {
            Some((secret, key)) => {
                let path = site.folder().join(&secret).join(&key).display().to_string();
                used.insert((secret, key));
                path
            }
            None => value.to_owned(),
        };
        let environment = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["name"].as_str().unwrap().to_owned(), here(one["value"].as_str().unwrap())));
        Container {
            binary: image.rsplit('/').next().unwrap().split(':').next().unwrap().to_owned(),
            environment: environment.collect(),
            arguments: container["args"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|argument| argument.as_str().unwrap().to_owned())
                .collect(),
        }
    };
    pod.containers().iter().map(container).collect()
}

/// As `kubectl exec -i` into the container of keys, with this on standard input; what it printed.
fn exec(site: &Site, keys: &Container, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(parts::binary("keys"))
        .args(arguments)
        .env_clear()
        .envs(keys.environment.iter().map(|(name, value)| (name, site.here(value))))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pod_runs_as_the_chart_says() {
    let rendered = render(&json!({ "edge": { "upstreamUrl": "http://api:8082" } }));
    let pods = pods(&rendered.objects);
    let (nats_users, users) = ("user: keys\npassword: \"p@\"\n".to_owned(), USERS.to_owned());
    let mut site = Site::start(Stores { nats: NATS.to_owned(), nats_users, users }).await;
    for (secret, keys) in secrets() {
        fs::create_dir_all(site.folder().join(secret)).unwrap();
        for (key, value) in keys {
            fs::write(site.folder().join(secret).join(key), site.here(value)).unwrap();
        }
    }
    for (host, port) in
        [("demo-keys", 50051), ("demo-query", 50052), ("demo-edge", 8081), ("demo-ui", 8080), ("api", 8082)]
    {
        site.move_port(host, port);
    }
    for (service, port) in [("keys", 9101), ("edge", 9102), ("ingest", 9103), ("query", 9104), ("ui", 9105)] {
        site.move_port(service, port);
        // By a name, as in a cluster.
        let here = site.here(&format!("0.0.0.0:{port}")).replace("127.0.0.1", "localhost");
        site.move_to(&format!("demo-{service}-pods:{port}"), here);
    }
    let spool = site.folder().join("spool");
    site.move_to("/var/lib/keymeter/spool", spool.to_str().unwrap());

    let mut used = BTreeSet::new();
    let mut of = |site: &Site, name: &str| {
        let pod = pods.iter().find(|pod| pod.name == name).unwrap();
        containers(site, pod, &mut used)
    };
    site.run(&of(&site, "Job demo-migrate")[0]).await;
    let keys = of(&site, "Deployment demo-keys").remove(0);
    site.keep(std::slice::from_ref(&keys)).await;
    // As NOTES.txt says it.
    for (command, file) in
        [(&["feed-keys"][..], "feed-keys"), (&["edge-token", "--days", "365"], "edge-token")]
    {
        let printed = exec(&site, &keys, command, "");
        fs::write(site.folder().join("keymeter-edge-feed").join(file), printed).unwrap();
    }
    let token = site.folder().join("service-token");
    let bootstrap = [
        ["bootstrap", "--email", "you@example.com", "--workspace-name", "Main"].as_slice(),
        &["--password-file", "/dev/stdin", "--service-token-file", token.to_str().unwrap()],
    ]
    .concat();
    exec(&site, &keys, &bootstrap, "correct horse battery staple\n");

    let api = Container {
        binary: "demo".to_owned(),
        arguments: vec!["api".to_owned()],
        environment: vec![("KEYMETER_DEMO_ADDR".to_owned(), "0.0.0.0:8082".to_owned())],
    };
    let mut rest = vec![api];
    for name in
        ["Deployment demo-ingest", "Deployment demo-query", "StatefulSet demo-edge", "Deployment demo-ui"]
    {
        rest.extend(of(&site, name));
    }
    site.keep(&rest).await;
    let urls = ["http://demo-keys:50051", "http://demo-query:50052", "http://demo-edge:8081"];
    site.a_call_is_counted(fs::read_to_string(&token).unwrap().trim(), urls).await;
    for test in of(&site, "Pod demo-test") {
        site.run(&test).await;
    }

    let mut held: BTreeSet<_> = secrets()
        .into_iter()
        .flat_map(|(secret, keys)| keys.into_keys().map(move |key| (secret.to_owned(), key.to_owned())))
        .collect();
    held.extend(["feed-keys", "edge-token"].map(|key| ("keymeter-edge-feed".to_owned(), key.to_owned())));
    assert_eq!(used, held, "the values name every key of every Secret");
    let values = fs::read_to_string(parts::root().join("deploy/helm/keymeter/values.yaml")).unwrap();
    assert!(held.iter().all(|(_, key)| values.contains(key.as_str())), "and explain it");
}
