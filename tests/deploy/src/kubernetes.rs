//! What stands in a pod, whatever object makes it.

use serde_json::Value;

/// The pod of an object.
pub(crate) struct Pod {
    /// `Kind name` of the object.
    pub(crate) name: String,
    pub(crate) labels: Value,
    pub(crate) spec: Value,
}

/// `Kind name`.
pub(crate) fn named(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// The pods of all objects that have one.
pub(crate) fn pods(objects: &[Value]) -> Vec<Pod> {
    let of = |object: &Value| {
        let pod = match object["kind"].as_str().unwrap() {
            "Pod" => object,
            "Deployment" | "StatefulSet" | "Job" => &object["spec"]["template"],
            _ => return None,
        };
        Some(Pod {
            name: named(object),
            labels: pod["metadata"]["labels"].clone(),
            spec: pod["spec"].clone(),
        })
    };
    objects.iter().filter_map(of).collect()
}

impl Pod {
    pub(crate) fn containers(&self) -> &[Value] {
        self.spec["containers"].as_array().unwrap()
    }

    pub(crate) fn has_port(&self, name: &str) -> bool {
        self.containers()
            .iter()
            .filter_map(|container| container["ports"].as_array())
            .flatten()
            .any(|port| port["name"] == name)
    }

    /// The secret and its key that a container finds at `path`.
    pub(crate) fn secret_at(&self, container: &Value, path: &str) -> Option<(String, String)> {
        let mounts = container["volumeMounts"].as_array()?;
        let (mount, key) = mounts.iter().find_map(|mount| {
            let key = path.strip_prefix(mount["mountPath"].as_str()?)?.strip_prefix('/')?;
            Some((mount, key))
        })?;
        let volumes = self.spec["volumes"].as_array()?;
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"])?;
        Some((volume["secret"]["secretName"].as_str()?.to_owned(), key.to_owned()))
    }

    /// By HTTP; or, where a certificate is asked for that the kubelet has not, by what needs none.
    fn is_probed(&self, container: &Value) {
        let (alive, ready) = (&container["livenessProbe"], &container["readinessProbe"]);
        assert!(self.has_port("health"), "{}", self.name);
        if alive["httpGet"].is_object() {
            assert_eq!(alive["httpGet"]["path"], "/healthz", "{}", self.name);
            assert_eq!(ready["httpGet"]["port"], "health", "{}", self.name);
            return;
        }
        assert_eq!(alive["tcpSocket"]["port"], "health", "{}", self.name);
        let asked = &ready["exec"]["command"];
        let keys = ready["tcpSocket"]["port"] == "keys";
        assert!(keys || *asked == serde_json::json!(["/service", "healthcheck"]), "{}", self.name);
    }

    /// Runs with no more rights than it needs, and each container within limits.
    ///
    /// # Panics
    /// If not.
    pub(crate) fn is_contained(&self) {
        let (name, spec) = (&self.name, &self.spec);
        assert_eq!(spec["automountServiceAccountToken"], false, "{name}");
        // KEYMETER_KEYS_PORT=tcp://… would be a setting that nobody knows.
        assert_eq!(spec["enableServiceLinks"], false, "{name}");
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(spec["securityContext"]["runAsUser"], 65532, "{name}");
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in self.containers() {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"]["drop"][0], "ALL", "{name}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            assert!(container["image"].as_str().unwrap().contains(':'), "{name}");
            assert!(
                container["env"].as_array().unwrap().iter().all(|one| one["value"].is_string()),
                "{name}"
            );
            if name.starts_with("Deployment ") || name.starts_with("StatefulSet ") {
                self.is_probed(container);
            }
        }
    }
}
