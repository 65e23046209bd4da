use std::net::{IpAddr, Ipv4Addr};

use http::header::{AUTHORIZATION, DATE};

use super::*;
use crate::proxy::{HostHeader, ProxyOptions, UpstreamOptions};

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |&(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}

static CLIENTS_HOST: HeaderValue = HeaderValue::from_static("app.example.com");

fn plan<'a>() -> ForwardPlan<'a> {
    ForwardPlan {
        strip: &[],
        set: &[],
        cookies: &[],
        keep_authorization: false,
        scheme: Scheme::Https,
        host: &CLIENTS_HOST,
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        is_authenticated: true,
        until: None,
    }
}

fn forwarded(pairs: &[(&str, &str)], plan: &ForwardPlan<'_>) -> HeaderMap {
    let upstream = Upstream::new(UpstreamOptions::new("web", "http://app:1"), &ProxyOptions::default()).unwrap();
    let mut headers = map(pairs);
    to_upstream(&mut headers, plan, &upstream, false);
    headers
}

fn answered(pairs: &[(&str, &str)], is_authenticated: bool) -> HeaderMap {
    let mut headers = map(pairs);
    from_upstream(&mut headers, is_authenticated);
    headers
}

const SET: [(&str, &str); 4] = [
    ("host", "app.example.com"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.example.com"),
];

#[test]
fn forwarding_headers_are_set_from_facts_and_a_clients_own_are_dropped_in_every_spelling() {
    let sent = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x_forwarded_for", "6.6.6.6"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/admin"),
        ("x-forwarded_server", "evil"),
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x.real.ip", "6.6.6.6"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-doorward-subject", "admin"),
        ("x_doorward_subject", "admin"),
        ("x.doorward-anything", "admin"),
    ];
    assert_eq!(forwarded(&sent, &plan()), map(&SET));
}

#[test]
fn what_merely_looks_similar_stays() {
    let sent = [("x-doorwarden", "1"), ("x-forwarding", "1"), ("forwarded-by", "1"), ("x-real-ips", "1"), ("x", "1")];
    let got = forwarded(&sent, &plan());
    for (name, _) in sent {
        assert!(got.contains_key(name), "{name}");
    }
}

#[test]
fn a_clients_connection_header_takes_away_its_own_fields_and_none_of_ours() {
    let subject = HeaderName::from_static("x-doorward-subject");
    let value = HeaderValue::from_static("u1");
    let set = [(subject.clone(), value.clone())];
    let sent = [
        ("connection", "close, X-Doorward-Subject, x-private, X-FORWARDED-FOR"),
        ("connection", "host"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eDp5"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
    ];
    let got = forwarded(&sent, &ForwardPlan { set: &set, ..plan() });
    let mut wanted = map(&SET);
    wanted.insert(subject, value);
    wanted.insert("http2-settings", HeaderValue::from_static("AAMAAABk"));
    assert_eq!(got, wanted);
}

#[test]
fn trailers_are_announced_to_the_app_when_the_client_takes_them() {
    let got = forwarded(&[("te", "gzip, Trailers"), ("connection", "TE")], &plan());
    assert_eq!(
        (got.get(TE).unwrap(), got.get(CONNECTION).unwrap()),
        (&"trailers".parse().unwrap(), &"TE".parse().unwrap())
    );
    assert!(!forwarded(&[("te", "gzip")], &plan()).contains_key(TE));
}

#[test]
fn the_credential_that_was_used_does_not_reach_the_app_and_others_do() {
    let sent = [
        ("authorization", "Bearer x"),
        ("cookie", "a=1; __Host-doorward_sid=s; b=2;__Host-doorward_csrf=c; c=\"x; y\""),
        ("x-key", "1"),
    ];
    let strip = [HeaderName::from_static("x-key")];
    let got = forwarded(&sent, &ForwardPlan { strip: &strip, ..plan() });
    assert!(!got.contains_key(AUTHORIZATION) && !got.contains_key("x-key"));
    assert_eq!(got.get(COOKIE).unwrap(), "a=1; b=2; c=\"x; y\"");
    let got = forwarded(&sent, &ForwardPlan { keep_authorization: true, cookies: &["b"], ..plan() });
    assert_eq!(got.get(AUTHORIZATION).unwrap(), "Bearer x");
    assert_eq!(got.get(COOKIE).unwrap(), "a=1; c=\"x; y\"");
}

#[test]
fn cookies_that_are_not_ours_pass_byte_by_byte_and_split_ones_are_joined() {
    let odd = " a=1 ;b ;; =x; doorward_sidx=1 ";
    assert_eq!(forwarded(&[("cookie", odd)], &plan()).get(COOKIE).unwrap(), odd);
    let got = forwarded(&[("cookie", "a=1"), ("cookie", "doorward_sid=s"), ("cookie", "b=2")], &plan());
    assert_eq!(got.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    assert!(!forwarded(&[("cookie", "doorward_sid=s; doorward_csrf")], &plan()).contains_key(COOKIE));
}

#[test]
fn an_app_may_be_given_its_own_host() {
    let mut options = UpstreamOptions::new("web", "http://app:81");
    options.host = HostHeader::Upstream;
    let upstream = Upstream::new(options, &ProxyOptions::default()).unwrap();
    assert_eq!(upstream.own_host().unwrap(), "app:81");
}

#[test]
fn an_apps_connection_fields_stop_here() {
    let sent = [
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("date", "today"),
    ];
    let got = answered(&sent, false);
    assert_eq!(got, map(&[("date", "today")]));
    assert!(got.contains_key(DATE));
}

#[test]
fn an_app_cannot_set_our_cookies_nor_speak_in_our_name() {
    let sent = [
        ("set-cookie", "a=1; Path=/"),
        ("set-cookie", "__Host-doorward_sid=evil; Path=/; Secure"),
        ("set-cookie", " doorward_csrf = x"),
        ("set-cookie", "=doorward_sid=evil"),
        ("set-cookie", "b=doorward_sid=2"),
        ("x-doorward-reason", "none"),
        ("x_doorward_decision", "1"),
    ];
    assert_eq!(answered(&sent, false), map(&[("set-cookie", "a=1; Path=/"), ("set-cookie", "b=doorward_sid=2")]));
}

#[test]
fn an_answer_to_somebody_known_is_private_unless_it_says_otherwise() {
    assert_eq!(answered(&[], true).get(CACHE_CONTROL).unwrap(), "private");
    assert_eq!(answered(&[("cache-control", "public")], true).get(CACHE_CONTROL).unwrap(), "public");
    assert!(!answered(&[("expires", "0")], true).contains_key(CACHE_CONTROL));
    assert!(!answered(&[], false).contains_key(CACHE_CONTROL));
}

#[test]
fn trailers_carry_nothing_that_a_header_could_not() {
    let sent = [
        ("x-checksum", "1"),
        ("x-doorward-subject", "admin"),
        ("x_forwarded_for", "1.1.1.1"),
        ("authorization", "Bearer x"),
        ("cookie", "a=1"),
        ("host", "evil"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("remote-email", "admin@example.com"),
    ];
    let mut trailers = map(&sent);
    sift_request_trailers(&mut trailers, &[HeaderName::from_static("remote-email")]);
    assert_eq!(trailers, map(&[("x-checksum", "1")]));
    let mut trailers = map(&[("x-checksum", "1"), ("set-cookie", "doorward_sid=1"), ("x-doorward-reason", "x")]);
    sift_response_trailers(&mut trailers);
    assert_eq!(trailers, map(&[("x-checksum", "1")]));
}

#[test]
fn no_spelling_of_a_name_that_the_app_trusts_gets_through() {
    let strip = [HeaderName::from_static("remote-email")];
    for name in
        ["remote-email", "remote_email", "remote.email", "http_remote_email", "true-client-ip", "http_x_doorward_org"]
    {
        let got = forwarded(&[(name, "admin")], &ForwardPlan { strip: &strip, ..plan() });
        assert!(!got.contains_key(name), "{name}");
    }
}
