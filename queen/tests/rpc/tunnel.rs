//! The tunnel and what is forwarded through it, with a hive that does as a test says.

use crate::harness::{PATIENCE, Running, Session, eventually, hive};
use bytes::Bytes;
use common::tunnel::{MESSAGES_WAITING, Pipe};
use hyper_util::client::legacy::Client as Http;
use hyper_util::rt::TokioExecutor;
use proto::hive_service_client::HiveServiceClient;
use proto::worker_service_client::WorkerServiceClient;
use proto::worker_service_server::{WorkerService, WorkerServiceServer};
use proto::*;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What a call met on the hive: cancelled when the hive's side of it is dropped.
#[derive(Debug, Default)]
struct Seen {
    stream_dropped: CancellationToken,
    call_dropped: CancellationToken,
}

/// A `WorkerService` that answers some calls, and hangs in others.
#[derive(Debug, Clone)]
struct Stub {
    name: &'static str,
    seen: Arc<Seen>,
    /// The `grpc-timeout` of each stop.
    timeouts: mpsc::UnboundedSender<String>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Ends never, and tells when it is dropped.
struct Endless(#[allow(dead_code)] DropGuard);

impl Stream for Endless {
    type Item = Result<StreamLogsResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in this test"))
}

#[tonic::async_trait]
impl WorkerService for Stub {
    type StreamLogsStream = Answers<StreamLogsResponse>;
    type StreamEventsStream = Answers<StreamEventsResponse>;

    async fn start_worker(&self, _: Request<StartWorkerRequest>) -> Result<Response<StartWorkerResponse>, Status> {
        let details = ErrorDetails::with_bad_request_violation("parameters.port", "use a port");
        Err(Status::with_error_details(Code::InvalidArgument, "parameters.port: use a port", details))
    }

    /// Never answers.
    async fn stop_worker(&self, request: Request<StopWorkerRequest>) -> Result<Response<StopWorkerResponse>, Status> {
        let told = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
        self.timeouts.send(told.unwrap_or_default().to_owned()).unwrap();
        let _dropped = self.seen.call_dropped.clone().drop_guard();
        std::future::pending().await
    }

    async fn restart_worker(
        &self,
        _: Request<RestartWorkerRequest>,
    ) -> Result<Response<RestartWorkerResponse>, Status> {
        unused()
    }

    async fn observe_worker(
        &self,
        _: Request<ObserveWorkerRequest>,
    ) -> Result<Response<ObserveWorkerResponse>, Status> {
        unused()
    }

    async fn unobserve_worker(
        &self,
        _: Request<UnobserveWorkerRequest>,
    ) -> Result<Response<UnobserveWorkerResponse>, Status> {
        unused()
    }

    async fn get_worker(
        &self,
        _: Request<WorkerServiceGetWorkerRequest>,
    ) -> Result<Response<WorkerServiceGetWorkerResponse>, Status> {
        unused()
    }

    async fn list_workers(
        &self,
        _: Request<WorkerServiceListWorkersRequest>,
    ) -> Result<Response<WorkerServiceListWorkersResponse>, Status> {
        unused()
    }

    /// One chunk, then nothing for ever.
    async fn stream_logs(&self, _: Request<StreamLogsRequest>) -> Result<Response<Self::StreamLogsStream>, Status> {
        let first = StreamLogsResponse { chunk: Bytes::from_static(b"hello"), position: None };
        let rest = Endless(self.seen.stream_dropped.clone().drop_guard());
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(rest))))
    }

    async fn stream_events(
        &self,
        _: Request<StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        unused()
    }

    async fn describe_hive(&self, _: Request<DescribeHiveRequest>) -> Result<Response<DescribeHiveResponse>, Status> {
        let hive = Some(Hive { hostname: self.name.to_owned(), ..Hive::default() });
        Ok(Response::new(DescribeHiveResponse { hive, ..DescribeHiveResponse::default() }))
    }

    async fn drain_hive(&self, _: Request<DrainHiveRequest>) -> Result<Response<DrainHiveResponse>, Status> {
        unused()
    }

    async fn list_templates(
        &self,
        _: Request<ListTemplatesRequest>,
    ) -> Result<Response<ListTemplatesResponse>, Status> {
        unused()
    }
}

struct Io(Pipe);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// An attached hive.
struct Attached {
    seen: Arc<Seen>,
    timeouts: mpsc::UnboundedReceiver<String>,
    /// The status that the queen ended the tunnel with.
    ended: mpsc::Receiver<Status>,
    /// Ends it when it is dropped, as if the hive were gone.
    _cut: DropGuard,
}

async fn open(queen: &Running, session: &str) -> Result<(Streaming<AttachResponse>, mpsc::Sender<Bytes>), Status> {
    let mut client = HiveServiceClient::new(queen.channel().await);
    let (sender, waiting) = mpsc::channel::<Bytes>(MESSAGES_WAITING);
    let first = tokio_stream::once(AttachRequest { session: session.to_owned(), ..AttachRequest::default() });
    let data = ReceiverStream::new(waiting).map(|data| AttachRequest { data, ..AttachRequest::default() });
    let mut incoming = client.attach(first.chain(data)).await?.into_inner();
    assert_eq!(incoming.message().await?, Some(AttachResponse::default()), "the first message says that it is open");
    Ok((incoming, sender))
}

impl Attached {
    async fn open(queen: &Running, session: &str, name: &'static str) -> Result<Self, Status> {
        let (incoming, sender) = open(queen, session).await?;
        let (told, ended) = mpsc::channel(1);
        let incoming = incoming.map(move |message| {
            message.map(|message| message.data).map_err(|status| {
                told.try_send(status.clone()).unwrap();
                io::Error::other(status)
            })
        });
        let (seen, (timeouts, heard)) = (Arc::new(Seen::default()), mpsc::unbounded_channel());
        let stub = Stub { name, seen: seen.clone(), timeouts };
        let cut = CancellationToken::new();
        let pipe = Io(Pipe::new(incoming, sender, cut.clone()));
        tokio::spawn(async move {
            let incoming = tokio_stream::once(Ok::<_, io::Error>(pipe)).chain(tokio_stream::pending());
            Server::builder().add_service(WorkerServiceServer::new(stub)).serve_with_incoming(incoming).await.unwrap();
        });
        Ok(Self { seen, timeouts: heard, ended, _cut: cut.drop_guard() })
    }
}

async fn client(queen: &Running) -> WorkerServiceClient<Channel> {
    WorkerServiceClient::new(queen.channel().await)
}

async fn described(queen: &Running) -> Result<String, Status> {
    let asked = DescribeHiveRequest { hive: "box".into() };
    let answer = timeout(PATIENCE, client(queen).await.describe_hive(asked)).await.unwrap()?;
    Ok(answer.into_inner().hive.unwrap().hostname)
}

fn logs() -> StreamLogsRequest {
    StreamLogsRequest { name: "box/llm/1".into(), follow: true, ..StreamLogsRequest::default() }
}

fn stop() -> StopWorkerRequest {
    StopWorkerRequest { name: "box/llm/1".into(), ..StopWorkerRequest::default() }
}

#[tokio::test]
async fn a_cancelled_call_is_cancelled_on_the_hive() {
    let queen = Running::start(|_| {}).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    let mut attached = Attached::open(&queen, &session.session, "first").await.unwrap();
    let mut stream = client(&queen).await.stream_logs(logs()).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().chunk, b"hello".as_slice());
    assert!(!attached.seen.stream_dropped.is_cancelled());
    drop(stream);
    timeout(PATIENCE, attached.seen.stream_dropped.cancelled()).await.unwrap();
    let mut stopper = client(&queen).await;
    let stopping = tokio::spawn(async move { stopper.stop_worker(stop()).await });
    attached.timeouts.recv().await.unwrap();
    stopping.abort();
    timeout(PATIENCE, attached.seen.call_dropped.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_reaches_the_hive_and_holds_here() {
    let queen = Running::start(|_| {}).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    let mut attached = Attached::open(&queen, &session.session, "first").await.unwrap();
    let mut request = Request::new(stop());
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    // A client that does not watch the time itself, as tonic's own channel would.
    let http = Http::builder(TokioExecutor::new()).http2_only(true).build_http::<tonic::body::Body>();
    let mut bare = WorkerServiceClient::with_origin(http, format!("http://{}", queen.address).parse().unwrap());
    let began = Instant::now();
    let status = timeout(PATIENCE, bare.stop_worker(request)).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("hive box has not answered within 300ms"), "{status}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(!attached.timeouts.recv().await.unwrap().is_empty(), "the hive knows how long it has");
    timeout(PATIENCE, attached.seen.call_dropped.cancelled()).await.unwrap();
    let mut wrong = Request::new(stop());
    wrong.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let status = client(&queen).await.stop_worker(wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
}

#[tokio::test]
async fn a_status_comes_through_with_its_details() {
    let queen = Running::start(|_| {}).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    let _attached = Attached::open(&queen, &session.session, "first").await.unwrap();
    let request = StartWorkerRequest { hive: "box".into(), template: "t".into(), ..StartWorkerRequest::default() };
    let status = client(&queen).await.start_worker(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "parameters.port: use a port"));
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "parameters.port");
}

#[tokio::test]
async fn t2_a_newer_session_ends_the_tunnel_of_the_older_with_aborted() {
    let queen = Running::start(|_| {}).await;
    let old = Session::open(&queen, hive("box")).await.unwrap();
    let mut first = Attached::open(&queen, &old.session, "first").await.unwrap();
    assert_eq!(described(&queen).await.unwrap(), "first");
    let mut stream = client(&queen).await.stream_logs(logs()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let new = Session::open(&queen, hive("box")).await.unwrap();
    let status = timeout(PATIENCE, first.ended.recv()).await.unwrap().unwrap();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    // What ran in it ends too: the older one serves nobody any more.
    assert_eq!(timeout(PATIENCE, stream.message()).await.unwrap().unwrap_err().code(), Code::Unavailable);
    let status = Attached::open(&queen, &old.session, "again").await.err().unwrap();
    assert_eq!(status.code(), Code::Aborted, "{status}");
    let _second = Attached::open(&queen, &new.session, "second").await.unwrap();
    assert_eq!(described(&queen).await.unwrap(), "second");
}

#[tokio::test]
async fn the_next_tunnel_of_a_session_is_called_and_the_one_before_goes_on() {
    let queen = Running::start(|_| {}).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    let _first = Attached::open(&queen, &session.session, "first").await.unwrap();
    let mut stream = client(&queen).await.stream_logs(logs()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let _second = Attached::open(&queen, &session.session, "second").await.unwrap();
    assert_eq!(described(&queen).await.unwrap(), "second");
    assert!(timeout(Duration::from_millis(200), stream.message()).await.is_err(), "what ran in the first goes on");
    let _third = Attached::open(&queen, &session.session, "third").await.unwrap();
    assert_eq!(timeout(PATIENCE, stream.message()).await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(described(&queen).await.unwrap(), "third");
}

#[tokio::test]
async fn a_tunnel_that_ends_is_gone_and_its_telemetry_goes_on() {
    let queen = Running::start(|_| {}).await;
    let mut session = Session::open(&queen, hive("box")).await.unwrap();
    session.snapshot(vec![]).await;
    let attached = Attached::open(&queen, &session.session, "first").await.unwrap();
    assert_eq!(described(&queen).await.unwrap(), "first");
    drop(attached);
    let gone = async || described(&queen).await.err().filter(|status| status.message().contains("not attached"));
    let status = eventually("the tunnel is gone", gone).await;
    assert_eq!(status.code(), Code::Unavailable);
    let books = session.goodbye().await.unwrap();
    assert_eq!((books.frames_accepted, books.frames_refused), (1, 0));
}

#[tokio::test]
async fn only_a_session_opens_a_tunnel() {
    let queen = Running::start(|_| {}).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    for (name, code) in [("", Code::FailedPrecondition), ("box/1/x", Code::FailedPrecondition)] {
        assert_eq!(open(&queen, name).await.err().unwrap().code(), code, "{name:?}");
    }
    let mut client = HiveServiceClient::new(queen.channel().await);
    let early =
        AttachRequest { session: session.session.clone(), data: Bytes::from_static(b"x"), ..Default::default() };
    let status = client.attach(tokio_stream::once(early)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    // What is no HTTP/2 ends the calls in it, not the queen.
    let (_incoming, sender) = open(&queen, &session.session).await.unwrap();
    sender.send(Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")).await.unwrap();
    let status = described(&queen).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn q7_stopping_with_a_tunnel_and_a_forwarded_stream_takes_less_than_a_second() {
    let queen = Running::start(|_| {}).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    let mut attached = Attached::open(&queen, &session.session, "first").await.unwrap();
    let mut stream = client(&queen).await.stream_logs(logs()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let took = queen.stop().await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(stream.message().await.unwrap_err().code(), Code::Unavailable);
    let status = timeout(PATIENCE, attached.ended.recv()).await.unwrap().unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn who_finds_no_place_is_told_when_to_try_again() {
    let queen = Running::start(|config| (config.max_tunnels, config.max_hive_calls) = (1, 1)).await;
    let session = Session::open(&queen, hive("box")).await.unwrap();
    let mut attached = Attached::open(&queen, &session.session, "first").await.unwrap();
    let other = Session::open(&queen, hive("other")).await.unwrap();
    let refused = Attached::open(&queen, &other.session, "second").await.err().unwrap();
    let mut stopper = client(&queen).await;
    let stopping = tokio::spawn(async move { stopper.stop_worker(stop()).await });
    attached.timeouts.recv().await.unwrap();
    let busy = described(&queen).await.unwrap_err();
    for status in [refused, busy] {
        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert!(status.code() == Code::ResourceExhausted && retry.is_some_and(|wait| !wait.is_zero()), "{status:?}");
    }
    stopping.abort();
}
