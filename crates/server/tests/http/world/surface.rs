//! One request through each surface that judges: the reverse proxy, forward-auth in each dialect, the layer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{Extension, Router, body::Body};
use doorward_core::{client::TrustedProxies, request::Scheme};
use doorward_gate::tower::{Admitted, GateLayer, Peer};
use doorward_testkit::wire::{Answer, Wire};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpSocket;
use tower_service::Service as _;

use super::{Request, Seen, World, outcome};

/// Where clients come from: loopback, but not the address that worlds trust.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A way for a request to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    Proxy,
    Nginx,
    Caddy,
    Traefik,
    Haproxy,
    Envoy,
    Layer,
}

/// All of them, the reverse proxy first.
pub(crate) const SURFACES: [Surface; 7] = [
    Surface::Proxy,
    Surface::Nginx,
    Surface::Caddy,
    Surface::Traefik,
    Surface::Haproxy,
    Surface::Envoy,
    Surface::Layer,
];

/// What came out, in words that all surfaces share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Let through; the subject that the app is told, empty for nobody.
    Admitted(String),
    /// Status and reason.
    Refused(u16, String),
}

impl Verdict {
    fn refused(answer: &Answer) -> Self {
        match outcome(answer) {
            (status, Some(reason)) => Self::Refused(status, reason.to_owned()),
            (status, None) => panic!("neither the app's nor a refusal: {status} {answer:?}"),
        }
    }
}

/// Longest request in bytes that has to get through everywhere: less than nginx and our listener take as a head.
const LONG: usize = 30 * 1024;

/// Names that a front proxy sets itself or clears, in any spelling, as the files in `deploy/` do.
const FRONT_OWNS: [&str; 15] = [
    "connection",
    "content-length",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
];

impl World {
    /// The verdict of one surface, and what the app then got (not in forward-auth, where it gets it from
    /// the front proxy). `Err` says why the request cannot come this way at all.
    pub(crate) async fn judge(
        &self,
        surface: Surface,
        request: &Request,
    ) -> Result<(Verdict, Option<Seen>), &'static str> {
        match surface {
            Surface::Proxy => {
                let answer = self.as_client(request).await;
                Ok(match Seen::find(&answer) {
                    Some(seen) => {
                        let subject = seen.header("x-doorward-subject").unwrap_or_default().to_owned();
                        (Verdict::Admitted(subject), Some(seen))
                    }
                    None => (Verdict::refused(&answer), None),
                })
            }
            Surface::Layer => self.through_layer(request).await,
            dialect => self.forward_auth(dialect, request).await.map(|verdict| (verdict, None)),
        }
    }

    /// Sends it from [`CLIENT`], a peer that is not trusted.
    pub(crate) async fn as_client(&self, request: &Request) -> Answer {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(CLIENT, 0)).unwrap();
        let mut wire = Wire::over(socket.connect(self.address()).await.unwrap());
        wire.send(request.bytes()).await;
        let mut answer = wire.answer_to(&request.method).await;
        if request.method == "HEAD" && answer.header("x-app").is_some() {
            // The app cannot say in a body what it heard; its own record can.
            let heard = self.app.heard().into_iter().map(|heard| String::from_utf8(heard).unwrap());
            let last = heard.filter_map(|text| Some(text[text.rfind("HEAD /")?..].to_owned())).next_back();
            answer.body = last.unwrap().into();
        }
        answer
    }

    async fn forward_auth(&self, surface: Surface, request: &Request) -> Result<Verdict, &'static str> {
        let check = check_request(surface, request)?;
        let mut wire = Wire::to(self.address()).await;
        wire.send(check.bytes()).await;
        let answer = wire.answer_to(&check.method).await;
        if answer.status == 200 {
            assert!(answer.header("x-doorward-decision").is_some_and(|id| !id.is_empty()), "{answer:?}");
            // Every header is written, or a client's own would get through.
            for name in ["subject", "issuer", "email", "method", "org", "license", "assertion"] {
                assert!(answer.header(&format!("x-doorward-{name}")).is_some(), "{name}: {answer:?}");
            }
            assert!(answer.header("remote-email").is_some(), "{answer:?}");
            return Ok(Verdict::Admitted(answer.header("x-doorward-subject").unwrap_or_default().to_owned()));
        }
        let Verdict::Refused(status, reason) = Verdict::refused(&answer) else { unreachable!() };
        if surface != Surface::Nginx {
            return Ok(Verdict::Refused(status, reason));
        }
        // nginx makes a 500 of everything else.
        assert!([401, 403].contains(&status), "{answer:?}");
        let real = answer.header("x-doorward-status").unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap();
        assert_eq!(status == 401, real == 401 || real == 302, "{answer:?}");
        Ok(Verdict::Refused(real, reason))
    }

    async fn through_layer(&self, request: &Request) -> Result<(Verdict, Option<Seen>), &'static str> {
        let inner = Router::new().fallback(tell);
        let trusted = TrustedProxies::new(vec!["127.0.0.1".parse().unwrap()]);
        let mut app = inner.layer(GateLayer::new(self.gate().clone(), Scheme::Https).trusting(trusted));
        let request = in_process(request)?;
        let is_head = request.method() == Method::HEAD;
        let (parts, body) = app.call(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if parts.status == 200 {
            // axum answers HEAD without a body.
            let told = if is_head { parts.headers["x-told"].as_bytes() } else { &body };
            let told: serde_json::Value = serde_json::from_slice(told).unwrap();
            let pairs = told["headers"].as_array().unwrap().iter();
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let seen = Seen {
                line: text(&told["line"]),
                headers: pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
                body: text(&told["body"]),
            };
            return Ok((Verdict::Admitted(text(&told["subject"])), Some(seen)));
        }
        let reason = parts.headers["x-doorward-reason"].to_str().unwrap().to_owned();
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["reason"], reason);
        Ok((Verdict::Refused(parts.status.as_u16(), reason), None))
    }
}

/// Says what reached a handler behind the layer.
async fn tell(Extension(admitted): Extension<Admitted>, request: http::Request<Body>) -> Response<Body> {
    assert_eq!(admitted.client, CLIENT);
    let subject = admitted.principal.map_or(String::new(), |principal| principal.subject.to_string());
    let (parts, body) = request.into_parts();
    let headers = parts.headers.iter();
    let headers: Vec<_> = headers.map(|(name, value)| [name.as_str().into(), latin1(value.as_bytes())]).collect();
    let body = body.collect().await.unwrap().to_bytes();
    let line = format!("{} {} HTTP/1.1", parts.method, parts.uri.path_and_query().unwrap());
    let told = json!({ "subject": subject, "line": line, "headers": headers, "body": latin1(&body) }).to_string();
    Response::builder().header("x-told", &told).body(Body::from(told)).unwrap()
}

/// Bytes as characters of the same number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// What a proxy in front sends to ask about `request`.
fn check_request(surface: Surface, request: &Request) -> Result<Request, &'static str> {
    let [host] = &request.hosts[..] else { return Err("a front proxy has one host to tell, or refused before") };
    let is_value = |bytes: &[u8]| {
        HeaderValue::from_bytes(bytes).is_ok() && !bytes.is_empty() && bytes.trim_ascii().len() == bytes.len()
    };
    if !is_value(&request.target) && surface != Surface::Envoy || !is_value(host) {
        return Err("a target or host that no header can carry");
    }
    if request.headers.iter().any(|(_, value)| HeaderValue::from_bytes(value.trim_ascii()).is_err()) {
        return Err("a value that no header can carry, which a front proxy refuses or cleans");
    }
    if request.bytes().len() > LONG {
        return Err("a head longer than a front proxy takes");
    }
    let word = match surface {
        Surface::Nginx => "nginx",
        Surface::Caddy => "caddy",
        Surface::Traefik => "traefik",
        Surface::Haproxy => "haproxy",
        Surface::Envoy => "envoy",
        Surface::Proxy | Surface::Layer => unreachable!("no forward-auth"),
    };
    // Envoy asks as the client did; the others have said in headers what the client asked for.
    let own = if surface == Surface::Envoy { &host[..] } else { b"doorward.internal" };
    let mut check = Request::get(format!("/auth/check/{word}")).to(own);
    let is_its_own = |name: &str| {
        let name = name.replace(|mark: char| !mark.is_ascii_alphanumeric(), "-").to_ascii_lowercase();
        FRONT_OWNS.contains(&&*name)
    };
    check.headers = request.headers.iter().filter(|(name, _)| !is_its_own(name)).cloned().collect();
    check = check.with("X-Forwarded-For", CLIENT.to_string());
    match surface {
        Surface::Nginx | Surface::Haproxy => {
            check = check.with("X-Original-Method", &request.method).with("X-Original-URL", &request.target);
            check = check.with("X-Forwarded-Host", host);
        }
        Surface::Caddy | Surface::Traefik => {
            check = check.with("X-Forwarded-Method", &request.method).with("X-Forwarded-Uri", &request.target);
            check = check.with("X-Forwarded-Proto", "https").with("X-Forwarded-Host", host);
        }
        _ => {
            if !request.target.starts_with(b"/") {
                return Err("Envoy puts the path behind ours, so it begins with a slash");
            }
            check.method.clone_from(&request.method);
            check.target.extend_from_slice(&request.target);
        }
    }
    Ok(check)
}

/// The request as a server built on the `http` crate hands it to its service.
fn in_process(request: &Request) -> Result<http::Request<Body>, &'static str> {
    let uri = Uri::try_from(&*request.target).map_err(|_| "a target that is no http::Uri never gets to a service")?;
    if !uri.path_and_query().is_some_and(|kept| request.target.ends_with(kept.as_str().as_bytes())) {
        return Err("http::Uri has cut a part off before anybody sees it");
    }
    if request.bytes().len() > LONG {
        return Err("a head longer than the server in front of the layer takes");
    }
    let mut headers = HeaderMap::new();
    let hosts = request.hosts.iter().map(|host| ("host", host));
    for (name, value) in hosts.chain(request.headers.iter().map(|(name, value)| (name.as_str(), value))) {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "a name that is no http::HeaderName")?;
        // Spaces round a value are none of it (RFC 9110 §5.5).
        let value = HeaderValue::from_bytes(value.trim_ascii()).map_err(|_| "a value that is no http::HeaderValue")?;
        headers.append(name, value);
    }
    let mut made = http::Request::new(Body::from(request.body.clone()));
    *made.method_mut() = Method::from_bytes(request.method.as_bytes()).map_err(|_| "no http::Method")?;
    *made.uri_mut() = uri;
    *made.headers_mut() = headers;
    made.extensions_mut().insert(Peer(SocketAddr::new(CLIENT, 9)));
    Ok(made)
}
