//! What the standard `OTEL_*` variables say of telemetry: where spans go, which, and in whose name. Read once; what
//! the exporter would silently make something else of is refused.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use axum::http::{HeaderName, Uri};
use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    SpanExporter, WithExportConfig as _, WithTonicConfig as _,
    tonic_types::transport::{Certificate, ClientTlsConfig, Identity},
};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
};
use trace::Sampling;
use uuid::Uuid;

/// Settings of telemetry.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `OTEL_SDK_DISABLED`: no metrics either.
    pub(crate) is_disabled: bool,
    /// Where spans go; `None` makes none.
    target: Option<Target>,
    pub(crate) sampling: Sampling,
    service_name: Option<String>,
}

#[derive(Debug)]
struct Target {
    endpoint: String,
    is_https: bool,
    /// Who may certify the endpoint.
    authority: Option<File>,
    /// Our own certificate and its key.
    client: Option<[File; 2]>,
}

/// The variable, and the file that it names.
type File = (String, PathBuf);

impl Settings {
    /// Reads them with `get`, which gives the value of a variable.
    ///
    /// # Errors
    /// If a value cannot be used: which, and why. Never the value of headers, which are secrets.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        // Empty is as good as absent, as the specification has it.
        let get =
            |name: &str| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let is_disabled = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let sampler = get("OTEL_TRACES_SAMPLER").unwrap_or_default();
        let sampling = Sampling::parse(&sampler, &get("OTEL_TRACES_SAMPLER_ARG").unwrap_or_default())?;
        pairs("OTEL_RESOURCE_ATTRIBUTES", &get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default())?;
        let exports = match get("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => true,
            Some("none") => false,
            Some(_) => bail!("OTEL_TRACES_EXPORTER is neither otlp nor none"),
        };
        let target = if is_disabled || !exports { None } else { Target::read(&get)? };
        Ok(Self { is_disabled, target, sampling, service_name: get("OTEL_SERVICE_NAME") })
    }

    /// Who says it: `service` in this version, as an instance of its own, unless the environment says otherwise.
    pub(crate) fn resource(&self, service: &'static str) -> Resource {
        let ours = [
            KeyValue::new("service.name", service),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", Uuid::now_v7().to_string()),
        ];
        let given = self.service_name.clone().map(|name| KeyValue::new("service.name", name));
        Resource::builder_empty()
            .with_attributes(ours)
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(given)
            .build()
    }

    /// What sends spans over gRPC; `None` if none are wanted.
    ///
    /// # Errors
    /// If the certificate cannot be read or the endpoint cannot be used.
    pub(crate) fn exporter(&self) -> anyhow::Result<Option<SpanExporter>> {
        let Some(target) = &self.target else { return Ok(None) };
        // The rest (headers, time limit, compression) it reads itself.
        let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(&target.endpoint);
        if target.is_https {
            let tls = match &target.authority {
                Some(file) => {
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(file, "CERTIFICATE")?))
                }
                None => ClientTlsConfig::new().with_enabled_roots(),
            };
            exporter = exporter.with_tls_config(match &target.client {
                Some([cert, key]) => {
                    tls.identity(Identity::from_pem(pem(cert, "CERTIFICATE")?, pem(key, "PRIVATE KEY")?))
                }
                None => tls,
            });
        }
        Ok(Some(exporter.build().context("OTEL_EXPORTER_OTLP_*: spans cannot be sent")?))
    }
}

impl Target {
    fn read(get: &impl Fn(&str) -> Option<String>) -> anyhow::Result<Option<Self>> {
        let find = |what: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
            names.into_iter().find_map(|name| get(&name).map(|value| (name, value)))
        };
        let Some((name, endpoint)) = find("ENDPOINT") else { return Ok(None) };
        let uri = endpoint.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        ensure!(
            matches!(scheme, Some("http" | "https")),
            "{name} is no address such as http://127.0.0.1:4317 or https://collector.example:4317"
        );
        if let Some((name, protocol)) = find("PROTOCOL") {
            ensure!(protocol == "grpc", "{name} must be grpc, the only one that is spoken: leave it out");
        }
        if let Some((name, headers)) = find("HEADERS") {
            for key in pairs(&name, &headers)? {
                ensure!(key.parse::<HeaderName>().is_ok(), "{name}: {key:?} is no name of a header");
            }
        }
        if let Some((name, timeout)) = find("TIMEOUT") {
            ensure!(timeout.parse::<u64>().is_ok_and(|ms| ms > 0), "{name} is no number of milliseconds");
        }
        let is_https = scheme == Some("https");
        let file = |what: &str| find(what).map(|(name, path)| (name, path.into()));
        let client = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(cert), Some(key)) => Some([cert, key]),
            (None, None) => None,
            (Some((name, _)), None) | (None, Some((name, _))) => {
                bail!(
                    "{name}: a client's certificate and its key go together, CLIENT_CERTIFICATE and CLIENT_KEY"
                )
            }
        };
        Ok(Some(Self { endpoint, is_https, authority: file("CERTIFICATE"), client }))
    }
}

/// A file in PEM that has at least one of `what`.
fn pem((name, path): &File, what: &str) -> anyhow::Result<String> {
    let named = || format!("{name}: {} is no {what} in PEM", path.display());
    let pem = std::fs::read_to_string(path).with_context(named)?;
    let has =
        pem.lines().any(|line| line.starts_with("-----BEGIN ") && line.ends_with(&format!("{what}-----")));
    ensure!(has, "{}", named());
    Ok(pem)
}

/// The names of `name=value,…`.
fn pairs<'a>(variable: &str, text: &'a str) -> anyhow::Result<BTreeSet<&'a str>> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).enumerate();
    pairs
        .map(|(index, pair)| match pair.split_once('=') {
            Some((name, _)) if !name.trim().is_empty() => Ok(name.trim()),
            _ => bail!("{variable}: entry {} is not of the form name=value", index + 1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let get = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::read(get).map_err(|error| error.to_string())
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");

    #[test]
    fn spans_are_sent_where_there_is_an_endpoint_and_nothing_is_against_it() {
        let sends = |variables: &[(&str, &str)]| read(variables).unwrap().target.is_some();
        assert!(!sends(&[]) && !sends(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
        assert!(sends(&[ENDPOINT]) && sends(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c:1")]));
        assert!(!sends(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]));
        assert!(!sends(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]));
        assert_eq!(read(&[]).unwrap().sampling, Sampling::default());
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_by_the_name_of_its_variable() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,api key=hunter2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key"),
        ] {
            let error = read(&[(name, value), ENDPOINT]).unwrap_err();
            assert!(error.contains(name) && !error.contains("hunter2"), "{name}={value}: {error}");
        }
        let nowhere =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1"), ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere")];
        let error = read(&nowhere).unwrap().exporter().unwrap_err().to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{error}");
    }

    #[test]
    fn a_process_says_who_it_is_and_the_environment_may_say_otherwise() {
        let name = |settings: Settings| {
            let resource = settings.resource("keymeter-test");
            for key in ["service.version", "service.instance.id", "telemetry.sdk.language"] {
                assert!(resource.get(&key.into()).is_some(), "{key}");
            }
            resource.get(&"service.name".into()).unwrap().to_string()
        };
        assert_eq!(name(read(&[]).unwrap()), "keymeter-test");
        assert_eq!(name(read(&[("OTEL_SERVICE_NAME", "mine")]).unwrap()), "mine");
    }
}
