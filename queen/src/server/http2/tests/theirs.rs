//! A library that others wrote, as the peer: what it says is understood, and what it hears is what was said.

use super::super::super::begin::Begun;
use super::peer::{LARGE, PATIENCE, serve};
use axum::body::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderValue, Request, Response};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tokio::time::timeout;

/// A client, which sends and holds no more at a time than `window`.
async fn client(window: u32) -> SendRequest<Bytes> {
    let (io, ours) = tokio::io::duplex(8 * 1024);
    tokio::spawn(async {
        let Some(Begun::Two(ours)) = Begun::read(ours).await.unwrap() else { panic!("a preface") };
        drop(serve(ours, Default::default()));
    });
    let mut builder = client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
    let (client, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn read(answer: Response<h2::RecvStream>) -> (Vec<u8>, Option<HeaderMap>) {
    let (mut body, mut all) = (answer.into_body(), Vec::new());
    while let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    (all, body.trailers().await.unwrap())
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://queen{path}")).body(()).unwrap()
}

/// Has a body echoed that is sent in pieces of this size; with trailers.
async fn echo(client: SendRequest<Bytes>, sent: Vec<u8>, piece: usize) {
    let mut client = client.ready().await.unwrap();
    let (answer, mut sender) = client.send_request(request("POST", "/echo"), false).unwrap();
    let pieces: Vec<Bytes> = sent.chunks(piece).map(Bytes::copy_from_slice).collect();
    let sending = async move {
        for piece in pieces {
            sender.send_data(piece, false).unwrap();
            tokio::task::yield_now().await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("yes"));
        sender.send_trailers(trailers).unwrap();
    };
    let reading = async { read(timeout(PATIENCE, answer).await.unwrap().unwrap()).await };
    let ((), (heard, trailers)) = tokio::join!(sending, reading);
    assert!(heard == sent, "{} of {}", heard.len(), sent.len());
    assert_eq!(trailers.unwrap().get("x-end").unwrap(), "yes");
}

#[tokio::test]
async fn bodies_come_back_as_they_went_through_small_windows_and_large() {
    for window in [1, 100, 20_000, 1 << 20] {
        let length = if window == 1 { 1_000 } else { 200_000 };
        let sent: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
        let client = client(window).await;
        tokio::join!(
            echo(client.clone(), sent.clone(), 100_000),
            echo(client.clone(), sent.clone(), 999),
            echo(client, Vec::new(), 1)
        );
    }
}

#[tokio::test]
async fn many_calls_one_after_the_other_leave_nothing_behind() {
    let client = client(65_535).await;
    for round in 0..300 {
        let mut client = client.clone().ready().await.unwrap();
        let (path, length) = if round % 7 == 0 { ("/large", LARGE) } else { ("/none", 0) };
        let (answer, _) = client.send_request(request("GET", path), true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), if length > 0 { 200 } else { 404 });
        assert_eq!(read(answer).await.0.len(), length);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fields_arrive_as_they_were_sent_however_they_were_packed(
        calls in vec(btree_map("x-[a-z0-9-]{1,20}", "[ -~]{0,60}", 0..12), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = client(65_535).await;
            // The same names again and again, so that both sides remember them.
            for fields in calls.iter().chain(&calls) {
                let mut request = request("GET", "/fields");
                for (name, value) in fields {
                    let name: http::HeaderName = name.parse().unwrap();
                    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
                }
                let mut client = client.clone().ready().await.unwrap();
                let (answer, _) = client.send_request(request, true).unwrap();
                let (heard, _) = read(answer.await.unwrap()).await;
                let map: BTreeMap<_, _> = fields.iter().collect();
                let heard = String::from_utf8(heard).unwrap();
                for (name, value) in map {
                    let said = format!("{name:?}: {:?}", HeaderValue::from_str(value).unwrap());
                    assert!(heard.contains(&said), "{said} in {heard}");
                }
            }
        });
    }
}
