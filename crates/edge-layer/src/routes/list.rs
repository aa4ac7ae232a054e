//! A list of routes, a line each. Pure.

use super::{RouteTemplates, RouteTemplatesError};
use crate::scopes::method;

/// Whether the first line that counts is one of a list: a method, and a path.
pub(super) fn is_list(text: &str) -> bool {
    let mut words = lines(text).next().map_or("", |(_, line)| line).split_ascii_whitespace();
    words.next().and_then(method).is_some() && words.next().is_some_and(|word| word.starts_with('/'))
}

/// Adds what the list names.
pub(super) fn read(text: &str, routes: &mut RouteTemplates) -> Result<(), RouteTemplatesError> {
    for (number, line) in lines(text) {
        let bad = || RouteTemplatesError::Line(number);
        let mut words = line.split_ascii_whitespace();
        let method = words.next().and_then(method).ok_or_else(bad)?;
        let (template, resource) = (words.next().ok_or_else(bad)?, words.next());
        if words.next().is_some() {
            return Err(bad());
        }
        routes.add(&|| format!("line {number}"), method, template, resource)?;
    }
    Ok(())
}

/// The lines that count, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIST: &str = "
        # orders
        GET  /v1/orders
        *    /v1/orders/{order_id}
        POST /v1/orders/{order_id}/items/{item_id} order_id
        GET  /v1/orders/export
        GET  /reports/{name}.pdf
    ";

    #[rstest]
    #[case("GET", "/v1/orders", Some(("/v1/orders", "")))]
    #[case("HEAD", "/v1/orders/", Some(("/v1/orders", "")))]
    #[case("GET", "/v1/orders/A-7", Some(("/v1/orders/{order_id}", "A-7")))]
    #[case("DELETE", "/v1/orders/A%2F7", Some(("/v1/orders/{order_id}", "A%2F7")))]
    #[case("POST", "/v1/orders/7/items/9", Some(("/v1/orders/{order_id}/items/{item_id}", "7")))]
    #[case::another_method("GET", "/v1/orders/7/items/9", Some(("/v1/orders/{order_id}/items/{item_id}", "7")))]
    #[case("GET", "/v1/orders/export", Some(("/v1/orders/export", "")))]
    #[case::for_every_method("PUT", "/v1/orders/export", Some(("/v1/orders/{order_id}", "export")))]
    #[case("GET", "/reports/may.pdf", Some(("/reports/{name}.pdf", "may")))]
    #[case("GET", "/elsewhere", None)]
    fn calls_find_their_routes(
        #[case] method: &str,
        #[case] path: &str,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let routes: RouteTemplates = LIST.parse().unwrap();
        let found = routes.of(method, path);
        assert_eq!(found.as_ref().map(|(route, id)| (*route, id.as_str())), expected);
        assert_eq!(routes.len(), 5);
    }

    #[rstest]
    #[case("GET /{b} b c", "line 1 is not `METHOD /template [parameter]`")]
    #[case("GET /a\n\nget /a", "line 3 is not")]
    #[case("GET /a\nGET", "line 2 is not")]
    #[case("GET /{", "line 1: a parameter is a name in braces")]
    #[case("GET /a\nGET /a", "line 2 is for the same method and path")]
    #[case("GET /{a} b", "line 1: there is no parameter {b}")]
    fn a_bad_list_is_told(#[case] text: &str, #[case] told: &str) {
        let error = text.parse::<RouteTemplates>().unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
