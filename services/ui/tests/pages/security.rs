//! Headers, cookies, forms from elsewhere, links to elsewhere, hostile texts, secrets.

use axum::http::{HeaderValue, StatusCode, header};
use domain::KeyId;
use rstest::rstest;
use time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    fakes::{EMAIL, PASSWORD, SECRET, ago},
    site::{Site, between, form},
};

const CREDENTIALS: [(&str, &str); 2] = [("email", EMAIL), ("password", PASSWORD)];

#[tokio::test]
async fn every_answer_keeps_to_itself() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    let sign_in = site.page("/sign-in").await;
    let script = between(&sign_in, "src=\"", "\"")[0].to_owned();
    for path in ["/keys", "/sign-in", "/nothing", "/", &script, &format!("/keys/{key}/usage?range=8d")] {
        let answer = site.get(path).await;
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), "same-origin", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "only over https");
    }
}

#[tokio::test]
async fn pages_are_kept_nowhere_and_assets_for_good() {
    let mut site = Site::signed_in().await;
    assert_eq!(site.get("/keys").await.header("cache-control"), "no-store");
    let page = site.page("/sign-in").await;
    let assets: Vec<_> =
        between(&page, "\"/assets/", "\"").into_iter().map(|rest| format!("/assets/{rest}")).collect();
    assert_eq!(assets.len(), 4);
    for path in assets {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("cache-control"), "public, max-age=31536000, immutable");
        assert!(!answer.header("content-type").is_empty());
    }
    assert_eq!(site.get("/assets/0123456789abcdef/app.css").await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/assets/0123456789abcdef/..%2FCargo.toml").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn no_page_has_inline_code_or_styles() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    site.fakes.add_call(key, "GET", "/v1/orders/{id}", 200);
    let own = ["usage", "edit", "secrets", "rotate", "disable", "enable", "delete"];
    let own = own.map(|page| format!("/keys/{key}/{page}"));
    for path in ["/keys", "/keys/new", "/sign-in"].into_iter().chain(own.iter().map(String::as_str)) {
        let page = site.page(path).await;
        for inline in [" style=", "<style", " onclick=", " onload=", "javascript:", "<script>"] {
            assert!(!page.contains(inline), "{path} has {inline}");
        }
    }
}

#[tokio::test]
async fn the_cookie_is_out_of_reach() {
    let mut site = Site::new().await;
    let answer = site.post("/sign-in", &CREDENTIALS).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("keymeter_session=session-"), "{cookie}");
    assert!(["HttpOnly", "SameSite=Lax", "Path=/"].iter().all(|part| cookie.contains(part)), "{cookie}");
    assert!(!cookie.contains("Secure") && !cookie.contains("Domain"), "{cookie}");
}

#[tokio::test]
async fn over_https_the_cookie_is_bound_to_the_host() {
    let mut site = Site::at("https://keys.example.com").await;
    let answer = site.post("/sign-in", &CREDENTIALS).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-keymeter=session-"), "{cookie}");
    assert!(
        ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"].iter().all(|part| cookie.contains(part)),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"), "{cookie}");
    assert!(answer.header("strict-transport-security").starts_with("max-age="));
    site.page("/keys").await;
}

#[tokio::test]
async fn a_session_given_by_somebody_else_is_not_taken_over() {
    let mut site = Site::signed_in().await;
    let planted = site.cookie("keymeter_session").unwrap().to_owned();
    let answer = site.post("/sign-in", &CREDENTIALS).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    let own = site.cookie("keymeter_session").unwrap().to_owned();
    assert_ne!(own, planted);
    assert_eq!(site.fakes.change(|state| state.sessions.clone()), [own], "the session before is ended");
    site.set_cookie("keymeter_session", &planted);
    assert_eq!(site.get("/keys").await.header("location"), "/sign-in");
}

#[tokio::test]
async fn forms_from_elsewhere_are_refused_before_anything_happens() {
    let mut site = Site::signed_in().await;
    let key = site.fakes.add_key("Billing", |_| {});
    let paths = [
        "/sign-in".to_owned(),
        "/sign-out".to_owned(),
        "/keys".to_owned(),
        format!("/keys/{key}/edit"),
        format!("/keys/{key}/rotate"),
        format!("/keys/{key}/disable"),
        format!("/keys/{key}/enable"),
        format!("/keys/{key}/secrets/sec_1/retire"),
        format!("/keys/{key}/delete"),
        format!("/keys/{key}/reveal"),
        "/columns".to_owned(),
    ];
    let before = site.fakes.change(|state| state.calls.clone());
    for path in &paths {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            let mut request = form(path, &[("display_name", "x"), ("next", "/keys")]);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
            let answer = site.send(request).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path} {name}: {value}");
            assert!(answer.body.contains("another site"));
            assert_eq!(answer.header("set-cookie"), "");
        }
    }
    assert_eq!(site.fakes.change(|state| state.calls.clone()), before);
    let mut own = form(&format!("/keys/{key}/delete"), &[("confirm", "Billing")]);
    own.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
    assert_eq!(site.send(own).await.status, StatusCode::OK);
}

#[rstest]
#[case("https://evil.example/", "/keys")]
#[case("//evil.example/", "/keys")]
#[case("/\\evil.example/", "/keys")]
#[case("/\t/evil.example", "/keys")]
#[case("/keys?deleted=1", "/keys?deleted=1")]
#[tokio::test]
async fn signing_in_leads_to_own_pages_only(#[case] next: &str, #[case] location: &str) {
    let mut site = Site::new().await;
    let answer = site.post("/sign-in", &[CREDENTIALS[0], CREDENTIALS[1], ("next", next)]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, location));
    let answer = site.post("/columns", &[("column", "method"), ("next", next)]).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, location));
}

#[tokio::test]
async fn without_a_session_every_page_asks_to_sign_in_and_comes_back() {
    let mut site = Site::new().await;
    let key = KeyId::generate();
    let usage = format!("/keys/{key}/usage?range=24h");
    let answer = site.get(&usage).await;
    let location = answer.header("location").to_owned();
    assert_eq!(answer.status, StatusCode::SEE_OTHER);
    assert_eq!(location, format!("/sign-in?next=%2Fkeys%2F{key}%2Fusage%3Frange%3D24h"));
    let next = between(&site.page(&location).await, "name=\"next\" value=\"", "\"")[0].to_owned();
    assert_eq!(next, usage);
    for path in ["/keys", "/keys/new", "/nothing", &format!("/keys/{key}/delete")] {
        assert_eq!(site.get(path).await.status, StatusCode::SEE_OTHER, "{path}");
    }
    for path in ["/keys", "/columns", &format!("/keys/{key}/delete")] {
        let answer = site.post(path, &[]).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/sign-in"), "{path}");
    }
    assert_eq!(site.fakes.change(|state| state.calls.clone()), Vec::<&str>::new());
}

#[tokio::test]
async fn a_session_that_has_ended_loses_its_cookie() {
    let mut site = Site::signed_in().await;
    site.fakes.change(|state| state.sessions.clear());
    let answer = site.get("/keys").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/sign-in"));
    assert_eq!(site.cookie("keymeter_session"), None);
}

#[tokio::test]
async fn signing_out_ends_the_session_at_keys_too() {
    let mut site = Site::signed_in().await;
    site.page("/keys").await;
    let session = site.cookie("keymeter_session").unwrap().to_owned();
    assert_eq!(site.post("/sign-out", &[]).await.header("location"), "/sign-in");
    assert_eq!(site.cookie("keymeter_session"), None);
    assert!(site.fakes.change(|state| state.sessions.is_empty()));
    site.set_cookie("keymeter_session", &session);
    assert_eq!(site.get("/keys").await.status, StatusCode::SEE_OTHER, "no access token is left in memory");
}

#[tokio::test]
async fn access_tokens_are_asked_for_once_and_before_they_end() {
    let mut site = Site::signed_in().await;
    let refreshes =
        |site: &Site| site.fakes.change(|s| s.calls.iter().filter(|rpc| **rpc == "Refresh").count());
    for _ in 0..3 {
        site.page("/keys").await;
    }
    assert_eq!(refreshes(&site), 1);
    let mut site = Site::signed_in().await;
    site.fakes.change(|state| state.access_life = Duration::seconds(20));
    for _ in 0..3 {
        site.page("/keys").await;
    }
    assert_eq!(refreshes(&site), 3, "a token in its last half minute is not used");
}

#[tokio::test]
async fn a_wrong_password_is_said_in_the_form() {
    let mut site = Site::new().await;
    let answer =
        site.post("/sign-in", &[("email", EMAIL), ("password", "guess"), ("next", "/keys/new")]).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.body.contains("The e-mail address or the password is wrong."));
    assert!(
        answer.body.contains(&format!("value=\"{EMAIL}\"")) && answer.body.contains("value=\"/keys/new\"")
    );
    assert!(!answer.body.contains("guess"));
    assert_eq!(answer.header("set-cookie"), "");
}

#[tokio::test]
async fn throttling_says_when_to_come_back() {
    let mut site = Site::new().await;
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(std::time::Duration::from_millis(29_500)));
    let status = Status::with_error_details(Code::ResourceExhausted, "slow", details);
    site.fakes.fail("SignIn", status);
    let answer = site.post("/sign-in", &CREDENTIALS).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "30"));
    assert!(answer.body.contains("Too many attempts. Try again in 30 seconds."));
}

/// Texts that anybody who calls the API, or names a key, can put on a page.
pub(crate) const HOSTILE: [&str; 7] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "</title><script>alert(1)</script>",
    "\" autofocus onfocus=alert(1) x=\"",
    "javascript:alert(1)",
    "&lt;b&gt; \u{202e}\u{0}",
];

#[tokio::test]
async fn stored_texts_stay_texts() {
    for text in HOSTILE {
        let mut site = Site::signed_in().await;
        let key = site.fakes.add_key(text, |key| {
            text.clone_into(&mut key.description);
            text.clone_into(&mut key.start);
            key.last_used_time = Some(ago(Duration::MINUTE));
        });
        let call_id = site.fakes.add(key, |call| {
            for field in [
                &mut call.method,
                &mut call.route,
                &mut call.path,
                &mut call.resource_id,
                &mut call.user_agent,
                &mut call.origin,
                &mut call.denial,
                &mut call.limit_name,
                &mut call.client_ip,
                &mut call.region,
                &mut call.secret_id,
                &mut call.client_request_id,
                &mut call.trace_id,
                &mut call.edge_id,
            ] {
                text.clone_into(field);
            }
        });
        site.fakes.change(|state| {
            let edge = proto::usage::UnaccountedEdge { edge_id: text.to_owned(), since: None };
            state.freshness.unaccounted_edges = vec![edge];
        });
        let all = "method.endpoint.path.resource_id.user_agent.origin.denial.limit.client_ip.region.secret_id.\
                   client_request_id.trace_id.edge_id";
        site.set_cookie("keymeter_columns", all);
        let reflected: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        for path in [
            "/keys".to_owned(),
            format!("/keys/{key}/usage"),
            format!("/keys/{key}/delete"),
            "/overview".to_owned(),
            format!("/keys/{key}/usage/latency"),
            format!("/keys/{key}/usage/requests/{call_id}?{reflected}"),
            format!("/keys/{key}/edit"),
            format!("/keys/{key}/rotate"),
            format!("/keys/{key}/secrets"),
            format!("/keys?search={reflected}"),
            format!("/keys/new?display_name={reflected}&tags={reflected}&limit_name={reflected}"),
            format!("/sign-in?next={reflected}"),
            format!("/keys/{key}/usage?route={reflected}&resource_id={reflected}&page_token={reflected}"),
        ] {
            check_inert(&path, &site.page(&path).await);
        }
        let fields = ["from", "key_id", "status_code", "method", "outcome", "range"];
        for field in fields {
            let path = format!("/keys/{key}/usage?{field}={reflected}");
            check_inert(&path, &site.get(&path).await.body);
        }
        check_inert(
            "key form",
            &site.post("/keys", &[("display_name", ""), ("description", text)]).await.body,
        );
        site.post("/views", &[("name", text), ("query", text), ("next", "/overview")]).await;
        check_inert("views", &site.page("/overview").await);
        check_inert("sign-in form", &site.post("/sign-in", &[("email", text), ("next", text)]).await.body);
    }
}

/// Nothing but our own elements and attributes is in the page: whatever came from outside is escaped.
pub(crate) fn check_inert(path: &str, page: &str) {
    for dangerous in ["<script>", "<img", "<svg/onload"] {
        assert!(!page.contains(dangerous), "{path} has {dangerous}");
    }
    for tag in page.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
        let outside_quotes: String = tag.split('"').step_by(2).collect();
        for attribute in [" onfocus", " onerror", " onload", "alert("] {
            assert!(!outside_quotes.contains(attribute), "{path}: <{tag}>");
        }
        for address in ["href=\"javascript:", "action=\"javascript:", "src=\"javascript:"] {
            assert!(!tag.contains(address), "{path}: <{tag}>");
        }
    }
}

#[tokio::test]
async fn a_secret_is_on_the_page_of_its_birth_and_in_no_other() {
    let mut site = Site::signed_in().await;
    let created = site.post("/keys", &[("display_name", "Billing"), ("environment", "test")]).await;
    assert_eq!((created.status, created.header("cache-control")), (StatusCode::OK, "no-store"));
    assert!(created.body.contains(SECRET));
    let link = between(&created.body, "href=\"/keys/key_", "\"")[0];
    let key = format!("key_{}", link.split('/').next().unwrap());
    for path in [
        "/keys".to_owned(),
        format!("/keys/{key}/usage"),
        format!("/keys/{key}/delete"),
        format!("/keys/{key}/edit"),
        format!("/keys/{key}/secrets"),
        "/keys/new".to_owned(),
    ] {
        assert!(!site.page(&path).await.contains(SECRET), "{path}");
    }
    assert_eq!(site.get(&format!("/keys/{key}/reveal")).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let revealed = site.post(&format!("/keys/{key}/reveal"), &[]).await;
    assert_eq!(revealed.body, format!("{{\"secret\":\"{SECRET}\"}}"));
    assert_eq!(
        (revealed.header("content-type"), revealed.header("cache-control")),
        ("application/json", "no-store")
    );
}

#[tokio::test]
async fn a_script_without_a_session_is_told_so_in_json() {
    let mut site = Site::new().await;
    let mut request = form(&format!("/keys/{}/reveal", KeyId::generate()), &[]);
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let answer = site.send(request).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (StatusCode::UNAUTHORIZED, "application/json")
    );
    assert!(answer.body.contains("sign in again"));
}
