//! The routes of an OpenAPI 3 document, JSON or YAML: `paths` under the paths of `servers`; all else is skipped.
//! Pure.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};

use super::{RouteTemplates, RouteTemplatesError};

/// Most paths, servers and references one after the other.
const PATHS_MAX: usize = 10_000;
const SERVERS_MAX: usize = 16;
const REFERENCES_MAX: usize = 8;
/// Most events of YAML and nodes, which a document of the largest size does not reach; what it expands does.
const YAML_NODES_MAX: usize = 4_000_000;

#[derive(Deserialize)]
struct Document {
    openapi: Option<String>,
    #[serde(default)]
    servers: Vec<Server>,
    #[serde(default)]
    paths: Paths,
    #[serde(default)]
    components: Components,
}

#[derive(Deserialize, Default)]
struct Components {
    #[serde(default, rename = "pathItems")]
    path_items: Paths,
}

#[derive(Deserialize)]
struct Server {
    url: String,
    #[serde(default)]
    variables: BTreeMap<String, Variable>,
}

#[derive(Deserialize)]
struct Variable {
    default: String,
}

/// Path items, without extensions.
#[derive(Default)]
struct Paths(Vec<(String, PathItem)>);

#[derive(Deserialize, Default)]
#[serde(default)]
struct PathItem {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    servers: Option<Vec<Server>>,
    #[serde(rename = "x-keymeter-resource-id")]
    resource_id: Option<String>,
    get: Option<Operation>,
    put: Option<Operation>,
    post: Option<Operation>,
    delete: Option<Operation>,
    options: Option<Operation>,
    head: Option<Operation>,
    patch: Option<Operation>,
    trace: Option<Operation>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Operation {
    servers: Option<Vec<Server>>,
    #[serde(rename = "x-keymeter-resource-id")]
    resource_id: Option<String>,
}

impl<'de> Deserialize<'de> for Paths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Paths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("path items under their paths")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Paths, M::Error> {
                let mut items = Vec::new();
                while let Some(path) = map.next_key::<String>()? {
                    if path.starts_with("x-") {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        items.push((path, map.next_value::<Option<PathItem>>()?.unwrap_or_default()));
                    }
                }
                Ok(Paths(items))
            }
        }

        deserializer.deserialize_map(Items)
    }
}

/// Adds what the document names.
pub(super) fn read(text: &str, routes: &mut RouteTemplates) -> Result<(), RouteTemplatesError> {
    let text = text.trim_start_matches('\u{feff}');
    let is_comment = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    if text.lines().all(is_comment) {
        return Err(RouteTemplatesError::Empty);
    }
    let mut document = if text.trim_start().starts_with('{') { json(text)? } else { yaml(text)? };
    if !document.openapi.as_deref().is_some_and(|version| version.starts_with("3.")) {
        return Err(RouteTemplatesError::Version);
    }
    let too_many = |what: &str, most| RouteTemplatesError::Document(format!("more than {most} {what}"));
    if document.paths.0.len() > PATHS_MAX {
        return Err(too_many("paths", PATHS_MAX));
    }
    // Some documents have each path with and without a slash at its end, which is the same here: without counts.
    document.paths.0.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut seen = HashSet::new();
    for (path, item) in &document.paths.0 {
        let item = resolve(item, &document);
        let servers = item.servers.as_ref().unwrap_or(&document.servers);
        for (method, operation) in item.operations() {
            let servers = operation.servers.as_ref().unwrap_or(servers);
            if servers.len() > SERVERS_MAX {
                return Err(too_many("servers", SERVERS_MAX));
            }
            let resource = operation.resource_id.as_deref().or(item.resource_id.as_deref());
            let place = || format!("paths.{path}.{}", method.unwrap_or("*").to_lowercase());
            for base in bases(servers) {
                let route = format!("{base}{path}");
                if seen.insert((method, route.trim_end_matches('/').to_owned())) {
                    routes.add(&place, method, &route, resource)?;
                }
            }
        }
    }
    Ok(())
}

fn json(text: &str) -> Result<Document, RouteTemplatesError> {
    serde_json::from_str(text).map_err(|error| RouteTemplatesError::Document(error.to_string()))
}

fn yaml(text: &str) -> Result<Document, RouteTemplatesError> {
    let mut options = serde_saphyr::Options::default();
    if let Some(budget) = &mut options.budget {
        (budget.max_events, budget.max_nodes) = (YAML_NODES_MAX, YAML_NODES_MAX);
    }
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| RouteTemplatesError::Document(error.to_string()))
}

/// The item that a reference within the document leads to; one that leads elsewhere has no operations.
fn resolve<'a>(item: &'a PathItem, document: &'a Document) -> &'a PathItem {
    let mut item = item;
    for _ in 0..REFERENCES_MAX {
        let Some(name) = item.reference.as_deref().and_then(|to| to.strip_prefix("#/components/pathItems/"))
        else {
            break;
        };
        let mut named = document.components.path_items.0.iter();
        let Some((_, found)) = named.find(|(own, _)| own == name) else { break };
        item = found;
    }
    item
}

impl PathItem {
    /// Operations by method. An item without any stands for every method.
    fn operations(&self) -> Vec<(Option<&'static str>, &Operation)> {
        const NOTHING: &Operation = &Operation { servers: None, resource_id: None };
        let all = [
            ("GET", &self.get),
            ("PUT", &self.put),
            ("POST", &self.post),
            ("DELETE", &self.delete),
            ("OPTIONS", &self.options),
            ("HEAD", &self.head),
            ("PATCH", &self.patch),
            ("TRACE", &self.trace),
        ];
        let known =
            all.into_iter().filter_map(|(method, operation)| Some((Some(method), operation.as_ref()?)));
        let known: Vec<_> = known.collect();
        if known.is_empty() { vec![(None, NOTHING)] } else { known }
    }
}

/// The different paths of servers, without a slash at the end; one empty path if there are none.
fn bases(servers: &[Server]) -> Vec<String> {
    let mut bases: Vec<String> = servers.iter().map(base).collect();
    bases.sort_unstable();
    bases.dedup();
    if bases.is_empty() { vec![String::new()] } else { bases }
}

fn base(server: &Server) -> String {
    let with_default = |url: String, (name, variable): (&String, &Variable)| {
        url.replace(&format!("{{{name}}}"), &variable.default)
    };
    let url = server.variables.iter().fold(server.url.clone(), with_default);
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => &url,
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const YAML: &str = r##"
openapi: 3.1.0
info: { title: Orders, version: 1 }
servers:
  - url: https://{place}.example.org/{version}/
    variables:
      place: { default: eu, enum: [eu, us] }
      version: { default: v1 }
  - url: https://sandbox.example.org/v1
paths:
  x-anything: [1, { a: b }]
  /orders/: { get: {} }
  /orders:
    get: { responses: { 200: { description: all } } }
    post: {}
  /orders/{order_id}/items/{item_id}:
    x-keymeter-resource-id: order_id
    parameters: [{ name: order_id, in: path, required: true, schema: { type: string } }]
    get: {}
    delete: { x-keymeter-resource-id: item_id }
  /reports/{name}.pdf: { get: {} }
  /shared/{id}: { $ref: "#/components/pathItems/Shared" }
  /foreign/{id}: { $ref: "others.yaml#/Foreign" }
  /status:
    servers: [{ url: / }]
    get: {}
    put: { servers: [{ url: "https://a/b" }, { url: "https://c/d" }] }
components:
  pathItems: { Shared: { patch: {} } }
  schemas: { Order: { type: object } }
"##;

    #[rstest]
    #[case("GET", "/v1/orders", Some(("/v1/orders", "")))]
    #[case("GET", "/orders", None)]
    #[case("GET", "/v1/orders/7/items/9", Some(("/v1/orders/{order_id}/items/{item_id}", "7")))]
    #[case("DELETE", "/v1/orders/7/items/9", Some(("/v1/orders/{order_id}/items/{item_id}", "9")))]
    #[case("GET", "/v1/reports/may.pdf", Some(("/v1/reports/{name}.pdf", "may")))]
    #[case("PATCH", "/v1/shared/4", Some(("/v1/shared/{id}", "4")))]
    #[case("BREW", "/v1/foreign/4", Some(("/v1/foreign/{id}", "4")))]
    #[case("GET", "/status", Some(("/status", "")))]
    #[case("PUT", "/b/status", Some(("/b/status", "")))]
    #[case("PUT", "/d/status", Some(("/d/status", "")))]
    #[case("GET", "/v1/status", None)]
    fn yaml_and_json_name_routes(
        #[case] method: &str,
        #[case] path: &str,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let value: serde_json::Value = serde_saphyr::from_str(YAML).unwrap();
        for text in [YAML.to_owned(), value.to_string(), format!("\u{feff}# ours{YAML}")] {
            let routes: RouteTemplates = text.parse().unwrap();
            let found = routes.of(method, path);
            assert_eq!(found.as_ref().map(|(route, id)| (*route, id.as_str())), expected);
        }
    }

    #[rstest]
    #[case(" \n# nothing yet", "names no routes")]
    #[case("a: [", "line 1")]
    #[case("{\"openapi\": \"3.0.3\",\n \"paths\": 7}", "line 2")]
    #[case("openapi: 3.0.3\npaths: []", "line 2")]
    #[case("swagger: '2.0'\npaths: {/a: {get: {}}}", "not OpenAPI 3.x")]
    #[case("openapi: 3.0.3\npaths: {}", "names no routes")]
    #[case("openapi: 3.0.3\npaths: {a: {get: {}}}", "paths.a.get: a template starts with /")]
    #[case("openapi: 3.0.3\npaths: {'/{a}': {get: {}}, '/{b}': {get: {}}}", "paths./{b}.get is for the same")]
    #[case("openapi: 3.0.3\npaths: {'/{a}': {x-keymeter-resource-id: b}}", "no parameter {b}")]
    fn a_bad_document_is_told(#[case] text: &str, #[case] told: &str) {
        let error = text.parse::<RouteTemplates>().unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }

    #[test]
    fn a_document_that_expands_is_refused() {
        let levels = (1..12).map(|level| {
            let before = vec![format!("*l{}", level - 1); 10].join(", ");
            format!("x{level}: &l{level} [{before}]\n")
        });
        let bomb =
            format!("openapi: 3.0.3\nx0: &l0 [lol]\n{}paths: {{/a: {{}}}}", levels.collect::<String>());
        let error = bomb.parse::<RouteTemplates>().unwrap_err();
        assert!(matches!(error, RouteTemplatesError::Document(_)), "{error}");
    }
}
