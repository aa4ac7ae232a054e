//! The router in front of the fakes, and a browser that knows cookies and nothing else.

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
};
use boot::Health;
use clap::Parser as _;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use ui::{App, Config};

use crate::fakes::{EMAIL, Fakes, PASSWORD};

/// A site of its own, for one test.
pub(crate) struct Site {
    router: Router,
    pub(crate) fakes: Fakes,
    cookies: Vec<(String, String)>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Site {
    /// Nobody is signed in.
    pub(crate) async fn new() -> Self {
        Self::at("http://127.0.0.1:8080").await
    }

    pub(crate) async fn at(public_url: &str) -> Self {
        let fakes = Fakes::new();
        let services = format!("http://{}", fakes.serve().await);
        let config = Config::parse_from([
            "ui",
            "--keys-url",
            &services,
            "--query-url",
            &services,
            "--public-url",
            public_url,
            "--edge-url",
            "https://api.example.com/v1/orders",
        ]);
        let router =
            ui::router(App::new(config, CancellationToken::new()).unwrap(), &Health::default()).unwrap();
        Self { router, fakes, cookies: Vec::new() }
    }

    /// Somebody is signed in.
    pub(crate) async fn signed_in() -> Self {
        let mut site = Self::new().await;
        let answer = site.post("/sign-in", &[("email", EMAIL), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        site
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// The page at `path`, which must be there.
    pub(crate) async fn page(&mut self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        answer.body
    }

    /// The first piece of an answer's body, before anybody has asked for another.
    pub(crate) async fn opening(&self, path: &str) -> String {
        let request = self.signed(Request::get(path).body(Body::empty()).unwrap());
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let piece = response.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(piece.to_vec()).unwrap()
    }

    /// Whether the body of an answer breaks off.
    pub(crate) async fn broken(&mut self, path: &str) -> bool {
        let request = self.signed(Request::get(path).body(Body::empty()).unwrap());
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body().collect().await.is_err()
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form(path, fields)).await
    }

    pub(crate) fn set_cookie(&mut self, name: &str, value: &str) {
        self.cookies.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn signed(&self, mut request: Request<Body>) -> Request<Body> {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8080"));
        headers.insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        request
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Answer {
        let request = self.signed(request);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.set_cookie(name, value);
        }
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A form as a browser sends it.
pub(crate) fn form(path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Body::from(body))
        .unwrap()
}

/// The texts between `start` and `end`, in order.
pub(crate) fn between<'a>(html: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    html.split(start).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0)).collect()
}

/// Not the router but the whole server, for what only it does.
pub(crate) fn config(services: &str) -> Config {
    Config::parse_from(["ui", "--keys-url", services, "--query-url", services])
}
