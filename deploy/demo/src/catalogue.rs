//! The endpoints of the demonstrated API: a small shop with orders, invoices, payments, webhooks and exports.
//! What an endpoint answers follows from the request alone, so a missing order stays missing.

use crate::dice::Dice;

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// HTTP method.
    pub method: &'static str,
    /// Path with at most one `{id}`.
    pub route: &'static str,
    /// How often it answers with which status, out of 1,000.
    pub statuses: &'static [(u16, u32)],
    /// Time that it takes, in milliseconds; up to twice that.
    pub latency_ms: u64,
    /// Whether it answers 429 when called too often.
    pub limited: bool,
}

const fn endpoint(
    method: &'static str,
    route: &'static str,
    latency_ms: u64,
    statuses: &'static [(u16, u32)],
) -> Endpoint {
    Endpoint { method, route, statuses, latency_ms, limited: false }
}

/// All of them.
pub const ENDPOINTS: &[Endpoint] = &[
    endpoint("GET", "/v1/orders", 9, &[(200, 985), (400, 10), (503, 5)]),
    endpoint("POST", "/v1/orders", 18, &[(201, 940), (400, 20), (422, 35), (500, 5)]),
    endpoint("GET", "/v1/orders/{id}", 5, &[(200, 935), (404, 60), (500, 5)]),
    endpoint("PATCH", "/v1/orders/{id}", 12, &[(200, 925), (404, 30), (409, 40), (500, 5)]),
    endpoint("DELETE", "/v1/orders/{id}", 10, &[(204, 900), (404, 70), (409, 30)]),
    endpoint("GET", "/v1/invoices/{id}", 7, &[(200, 950), (404, 40), (500, 10)]),
    endpoint("PUT", "/v1/invoices/{id}", 14, &[(200, 920), (409, 20), (422, 60)]),
    endpoint("GET", "/v1/customers/{id}/payments", 11, &[(200, 970), (404, 15), (503, 15)]),
    endpoint("POST", "/v1/customers/{id}/payments", 22, &[(201, 930), (402, 30), (422, 30), (500, 10)]),
    endpoint("POST", "/v1/webhooks", 6, &[(202, 900), (400, 70), (503, 30)]),
    Endpoint { limited: true, ..endpoint("POST", "/v1/exports", 25, &[(202, 990), (500, 10)]) },
];

/// The endpoint of a request.
///
/// # Errors
/// The status that says why there is none: 404 for the path, 405 for the method.
pub fn find(method: &str, path: &str) -> Result<&'static Endpoint, u16> {
    let mut matching = ENDPOINTS.iter().filter(|endpoint| matches(endpoint.route, path)).peekable();
    matching.peek().ok_or(404_u16)?;
    matching.find(|endpoint| endpoint.method == method).ok_or(405)
}

/// The status that the endpoint answers a request with, before any limit. A request that says nothing but the
/// route succeeds, so a first try does.
#[must_use]
pub fn status(endpoint: &Endpoint, path_and_query: &str, body: &[u8]) -> u16 {
    if path_and_query == endpoint.route && body.is_empty() {
        return endpoint.statuses[0].0;
    }
    let request = [endpoint.method.as_bytes(), b" ", path_and_query.as_bytes(), b"\n", body].concat();
    *Dice::of(&request).choose(endpoint.statuses)
}

fn matches(route: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (route.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("{id}"), Some(id)) if !id.is_empty() => {}
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_found_by_its_own_path() {
        for endpoint in ENDPOINTS {
            let found = find(endpoint.method, &endpoint.route.replace("{id}", "1007")).unwrap();
            assert_eq!((found.method, found.route), (endpoint.method, endpoint.route));
            assert_eq!(endpoint.statuses.iter().map(|(_, weight)| weight).sum::<u32>(), 1000);
        }
        assert_eq!(find("GET", "/v1/nothing").unwrap_err(), 404);
        assert_eq!(find("GET", "/v1/orders/").unwrap_err(), 404);
        assert_eq!(find("GET", "/v1/orders/1/2").unwrap_err(), 404);
        assert_eq!(find("DELETE", "/v1/orders").unwrap_err(), 405);
    }

    #[test]
    fn the_request_alone_decides_the_status() {
        let orders = find("GET", "/v1/orders/7").unwrap();
        let answers = |range: std::ops::Range<u32>| -> Vec<u16> {
            range.map(|id| status(orders, &format!("/v1/orders/{id}"), b"")).collect()
        };
        assert_eq!(answers(1000..1400), answers(1000..1400));
        let missing = answers(1000..2000).iter().filter(|status| **status == 404).count();
        assert!((30..90).contains(&missing), "{missing} of 1,000 are missing");
        assert_eq!(status(orders, "/v1/orders/1001", b""), 200, "the example of the guides");
        let all = find("GET", "/v1/orders").unwrap();
        assert_eq!(status(all, "/v1/orders", b""), 200);
        assert!((0..1000).any(|page| status(all, &format!("/v1/orders?page={page}"), b"") == 503));
        let new = find("POST", "/v1/orders").unwrap();
        assert!((0..100).any(|n| status(new, "/v1/orders", format!("{n}").as_bytes()) == 422));
    }
}
